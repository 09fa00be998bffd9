//! Four steps of every optimiser, with what it remembers.

use eqco_models::optim::{AdamWConfig, LarsConfig, Optimizer, OptimizerConfig, SgdConfig};

use super::parameters::{SmallNetwork, quantities};
use super::{KernelCheck, SUMS_IN_F32};

const STEPS: u64 = 4;

pub(super) fn checks(seed: u64) -> Vec<KernelCheck> {
    let nesterov = SgdConfig {
        nesterov: true,
        ..SgdConfig::default()
    };
    let optimizers = [
        ("SGD", OptimizerConfig::Sgd(SgdConfig::default())),
        (
            "SGD with Nesterov's momentum",
            OptimizerConfig::Sgd(nesterov),
        ),
        // Norms of whole parameters are sums.
        ("LARS", OptimizerConfig::Lars(LarsConfig::default())),
        ("AdamW", OptimizerConfig::AdamW(AdamWConfig::default())),
    ];
    let checks = optimizers.into_iter();
    checks
        .map(|(name, config)| check(seed, name, config))
        .collect()
}

fn check(seed: u64, name: &str, config: OptimizerConfig) -> KernelCheck {
    KernelCheck::new(format!("{name}, {STEPS} steps"), move |place| {
        let network = SmallNetwork::new(seed, place.device)?;
        let gradients = network.reached_gradients(place)?;
        let mut optimizer = Optimizer::new(&config, &network.set)?.with_backend(place.backend);
        for step in 0..STEPS {
            network.draw_gradients(seed, step, &gradients)?;
            let rate = 0.05 * (step + 1) as f64;
            optimizer.step(&network.set, &gradients, rate)?;
        }
        let parameters = network.set.to_named()?.into_iter();
        // The batch norm's statistics come from the pass that the gradients' room is from.
        let parameters = parameters.filter(|(name, _)| !name.contains("running"));
        let state = optimizer.state()?.into_iter();
        let state = state.map(|(name, tensor)| (format!("state {name}"), tensor));
        quantities(parameters.chain(state), SUMS_IN_F32)
    })
}
