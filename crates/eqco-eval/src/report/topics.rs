//! What curves show: the statistics of a step, their axes, and what to know about them.

use super::batch_statistics::StepRecord;

/// One statistic of a step.
pub(crate) struct Quantity {
    pub(crate) name: &'static str,
    pub(crate) value: fn(&StepRecord) -> f64,
    /// Half the height of the band around it.
    pub(crate) deviation: Option<fn(&StepRecord) -> f64>,
    /// Whether it is measured on some steps only, so that one without a value is no gap.
    pub(crate) is_sparse: bool,
}

impl Quantity {
    fn new(name: &'static str, value: fn(&StepRecord) -> f64) -> Self {
        Self {
            name,
            value,
            deviation: None,
            is_sparse: false,
        }
    }

    fn sparse(name: &'static str, value: fn(&StepRecord) -> f64) -> Self {
        Self {
            is_sparse: true,
            ..Self::new(name, value)
        }
    }
}

/// Statistics with a common axis: one chart for a single group, one for each of them otherwise.
pub(crate) struct Topic {
    pub(crate) stem: &'static str,
    /// Title of a chart with all quantities.
    pub(crate) title: &'static str,
    /// What follows a quantity's name in the title of a chart of its own.
    pub(crate) of_what: &'static str,
    /// Title of the vertical axis, with the unit.
    pub(crate) axis: &'static str,
    pub(crate) caption: &'static str,
    pub(crate) quantities: Vec<Quantity>,
}

/// All topics in the order of the page; `has_bands` says whether charts will have bands for deviations.
pub(crate) fn topics(has_bands: bool) -> Vec<Topic> {
    let topic = |stem, title, axis, caption, quantities| Topic {
        stem,
        title,
        of_what: "",
        axis,
        caption,
        quantities,
    };
    let mut topics = vec![
        topic(
            "loss",
            "Loss",
            "loss (nats)",
            "Chance is the loss while all similarities are equal: ln(1 + α), for DCL ln K.",
            vec![Quantity::new("loss", |step| step.loss)],
        ),
        Topic {
            of_what: " on mutual information",
            ..topic(
                "bound",
                "Bounds on mutual information",
                "bound (nats)",
                "The guaranteed bound, ln(1 + min(α, K)) − loss, holds for every encoder. The paper's, ln(1 + α) − loss, can \
             exceed the mutual information where α > K.",
                vec![
                    Quantity::new("guaranteed bound", |step| step.guaranteed_bound),
                    Quantity::new("paper's bound", |step| step.paper_bound),
                ],
            )
        },
        topic(
            "gradient-scale",
            "Gradient scale g",
            "gradient scale g",
            if has_bands {
                "g multiplies a query's whole gradient: one minus the probability that the loss gives to the positive. The band \
                 is one standard deviation over the queries of a batch to each side."
            } else {
                "g multiplies a query's whole gradient: one minus the probability that the loss gives to the positive."
            },
            vec![Quantity {
                deviation: has_bands.then_some(|step| step.gradient_scale_deviation),
                ..Quantity::new("gradient scale g", |step| step.gradient_scale)
            }],
        ),
        topic(
            "similarity",
            "Similarities",
            "cosine similarity",
            "",
            vec![
                Quantity::new("positive similarity", |step| step.positive_similarity),
                Quantity::new("negative similarity", |step| step.negative_similarity),
            ],
        ),
        topic(
            "contrast-top1",
            "Contrast top-1",
            "queries (%)",
            "Share of the queries whose positive is more similar than every negative; harder with more negatives.",
            vec![Quantity::new("contrast top-1", |step| {
                step.contrast_top1 * 100.0
            })],
        ),
        topic(
            "learning-rate",
            "Learning rate",
            "learning rate",
            "",
            vec![Quantity::new("learning rate", |step| step.learning_rate)],
        ),
        topic(
            "alignment",
            "Alignment",
            "alignment",
            "Mean squared distance of query and positive key, 0 to 4: lower is better aligned (Wang and Isola 2020).",
            vec![Quantity::sparse("alignment", |step| step.alignment)],
        ),
        topic(
            "uniformity",
            "Uniformity",
            "uniformity",
            "Log of the mean of exp(−2 d²) over pairs of queries: 0 when collapsed, lower is more even (Wang and Isola 2020).",
            vec![Quantity::sparse("uniformity", |step| step.uniformity)],
        ),
        topic(
            "effective-rank",
            "Effective rank",
            "effective rank (dimensions)",
            "Exponential of the entropy of the singular values of a batch of queries: 1 when collapsed (Roy and Vetterli 2007).",
            vec![Quantity::sparse("effective rank", |step| {
                step.effective_rank
            })],
        ),
    ];
    if !has_bands {
        let spread = topic(
            "gradient-scale-spread",
            "Spread of g within a batch",
            "standard deviation of g",
            "Over the queries of a batch.",
            vec![Quantity::new("spread of g", |step| {
                step.gradient_scale_deviation
            })],
        );
        topics.insert(3, spread);
    }
    topics
}
