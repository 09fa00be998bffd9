//! Environments of torchrun, of srun, and of neither.

use super::*;

fn ranks(variables: &[(&str, &str)]) -> Result<Ranks, RanksError> {
    Ranks::of(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

const TORCHRUN: [(&str, &str); 6] = [
    ("RANK", "5"),
    ("WORLD_SIZE", "8"),
    ("LOCAL_RANK", "1"),
    ("MASTER_ADDR", "gpu-a"),
    ("MASTER_PORT", "29500"),
    ("LOCAL_WORLD_SIZE", "4"),
];

const SRUN: [(&str, &str); 5] = [
    ("SLURM_PROCID", "3"),
    ("SLURM_NTASKS", "4"),
    ("SLURM_LOCALID", "1"),
    ("SLURM_JOB_NODELIST", "gpu[07-08]"),
    ("SLURM_JOB_ID", "120042"),
];

#[test]
fn torchrun_is_understood() {
    let found = ranks(&TORCHRUN).unwrap();
    assert_eq!(
        (found.local_rank, found.local_size, found.size()),
        (1, 4, 8)
    );
    let rendezvous = found.rendezvous.unwrap();
    assert_eq!((rendezvous.rank, rendezvous.port), (5, 29500));
    assert_eq!(rendezvous.host, "gpu-a");
    assert_eq!(rendezvous.patience, Duration::from_secs(1800));

    // Where torchrun itself listens on the port, the next one is taken by all ranks.
    let with_store = [&TORCHRUN[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
    assert_eq!(ranks(&with_store).unwrap().rendezvous.unwrap().port, 29501);
    assert_eq!(neighbour(65535), 65534);
    let impatient = [&TORCHRUN[..], &[("EQCO_GROUP_TIMEOUT", "7")]].concat();
    let rendezvous = ranks(&impatient).unwrap().rendezvous.unwrap();
    assert_eq!(
        (rendezvous.wait, rendezvous.patience),
        (Duration::from_secs(7), Duration::from_secs(7))
    );
}

#[test]
fn srun_is_understood() {
    let rendezvous = ranks(&SRUN).unwrap().rendezvous.unwrap();
    assert_eq!((rendezvous.rank, rendezvous.size), (3, 4));
    assert_eq!(
        (rendezvous.host.as_str(), rendezvous.port),
        ("gpu07", 15042)
    );
    let named = [
        &SRUN[..],
        &[("MASTER_ADDR", "10.0.0.7"), ("MASTER_PORT", "4000")],
    ]
    .concat();
    let rendezvous = ranks(&named).unwrap().rendezvous.unwrap();
    assert_eq!(
        (rendezvous.host.as_str(), rendezvous.port),
        ("10.0.0.7", 4000)
    );
    // torchrun within a Slurm job.
    let both = [&SRUN[..], &TORCHRUN[..]].concat();
    assert_eq!(ranks(&both).unwrap().rendezvous.unwrap().rank, 5);
}

#[test]
fn one_process_is_on_its_own_however_it_was_started() {
    let alone = Ranks::alone();
    for variables in [
        &[][..],
        &[
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "1"),
            ("SLURM_LOCALID", "0"),
        ],
        // A shell within an allocation.
        &[("SLURM_NTASKS", "4"), ("SLURM_JOB_NODELIST", "n1")],
        &[("MASTER_ADDR", "n1"), ("MASTER_PORT", "29500")],
        &[
            ("RANK", "0"),
            ("WORLD_SIZE", "1"),
            ("LOCAL_RANK", "0"),
            ("MASTER_ADDR", "n1"),
            ("MASTER_PORT", "29500"),
        ],
    ] {
        assert_eq!(ranks(variables).unwrap(), alone, "{variables:?}");
    }
    assert!(alone.is_first() && alone.size() == 1);
}

#[test]
fn what_is_missing_is_named() {
    for missing in [
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
    ] {
        let rest: Vec<_> = TORCHRUN
            .into_iter()
            .filter(|(name, _)| *name != missing)
            .collect();
        let error = ranks(&rest).unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with(&format!("{missing} is not set, while ")),
            "{told}"
        );
        assert!(error.hint().contains("unset them all"));
    }
    for missing in ["SLURM_NTASKS", "SLURM_LOCALID", "SLURM_JOB_ID"] {
        let rest: Vec<_> = SRUN
            .into_iter()
            .filter(|(name, _)| *name != missing)
            .collect();
        let told = ranks(&rest).unwrap_err().to_string();
        assert!(
            told.starts_with(&format!("{missing} is not set, while SLURM_PROCID is")),
            "{told}"
        );
    }
    let rest: Vec<_> = SRUN
        .into_iter()
        .filter(|(name, _)| *name != "SLURM_JOB_NODELIST")
        .collect();
    let error = ranks(&rest).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("SLURM_JOB_NODELIST, which is ``"),
        "{error}"
    );
    assert!(error.hint().contains("scontrol show hostnames"));
}

#[test]
fn what_is_out_of_range_is_told() {
    for (name, value, told) in [
        (
            "RANK",
            "8",
            "RANK: expected a number below WORLD_SIZE, which is 8, found `8`",
        ),
        (
            "RANK",
            "-1",
            "RANK: expected a number from 0 on, found `-1`",
        ),
        (
            "MASTER_PORT",
            "0",
            "MASTER_PORT: expected a port from 1 to 65535, found `0`",
        ),
        (
            "MASTER_PORT",
            "70000",
            "MASTER_PORT: expected a port from 1 to 65535, found `70000`",
        ),
        (
            "EQCO_GROUP_TIMEOUT",
            "0",
            "EQCO_GROUP_TIMEOUT: expected whole seconds, at least 1, found `0`",
        ),
    ] {
        let variables = [&[(name, value)][..], &TORCHRUN[..]].concat();
        assert_eq!(ranks(&variables).unwrap_err().to_string(), told);
    }
}

#[test]
fn each_process_of_a_machine_takes_the_next_gpu_unless_it_sees_but_one() {
    let (cpu, first) = (DeviceName::Cpu, DeviceName::Cuda(2));
    let found = ranks(&TORCHRUN).unwrap();
    assert_eq!(
        [found.device(cpu), found.device(first)],
        [cpu, DeviceName::Cuda(3)]
    );
    let with = |visible| ranks(&[&TORCHRUN[..], &[("CUDA_VISIBLE_DEVICES", visible)]].concat());
    assert_eq!(with("0,1,2,3").unwrap().device(first), DeviceName::Cuda(3));
    assert_eq!(with("6").unwrap().device(first), first);
}
