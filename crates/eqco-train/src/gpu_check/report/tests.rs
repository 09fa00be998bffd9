//! The table, on made-up findings.

use super::*;
use crate::gpu_check::kernels::Kernel;
use crate::gpu_check::outcome::PeerComparison;
use crate::gpu_check::part::Workload;

fn check(name: &str, distance: Option<f64>) -> Check {
    Check {
        name: name.to_owned(),
        passed: distance.is_some_and(|distance| distance <= 1e-5),
        distance,
        bound: 1e-5,
        detail: "gradient of input 0".to_owned(),
    }
}

fn measurement(name: &str, milliseconds: f64, work: Work) -> Measurement {
    Measurement {
        name: name.to_owned(),
        milliseconds,
        work,
    }
}

fn report(parts: Vec<PartReport>) -> Report {
    let report = Report {
        device: "NVIDIA H100".to_owned(),
        driver: "580.1".to_owned(),
        backend: "CUDA".to_owned(),
        cpu: "portable, AVX-512".to_owned(),
        version: "0.1.0",
        commit: "abcdef",
        seed: 1,
        parts,
        targets: Vec::new(),
        passed: false,
    };
    report.concluded()
}

fn sound() -> Vec<PartReport> {
    let kernel = Outcome {
        checks: vec![check("1x1", Some(4e-6)), check("3x3", Some(2e-6))],
        ..Outcome::default()
    };
    let speed = Outcome {
        measurements: vec![
            measurement(COPY, 1.0, Work::Bytes(3_000_000_000)),
            measurement("SGD", 2.0, Work::Bytes(4_500_000_000)),
            measurement("upload", 1.0, Work::HostBytes(50_000_000)),
        ],
        ..Outcome::default()
    };
    let workload = Outcome {
        measurements: vec![measurement("ResNet-50 step", 128.0, Work::Images(256))],
        comparisons: vec![PeerComparison {
            workload: "resnet50".to_owned(),
            variant: "eager".to_owned(),
            version: "2.15.0".to_owned(),
            warm_up_seconds: 8.0,
            our_milliseconds: 128.0,
            their_milliseconds: 160.0,
            speedup: 1.25,
            our_peak_bytes: Some(21_000_000_000),
            their_peak_bytes: Some(24_000_000_000),
        }],
        notes: vec!["NOT COMPARED with PyTorch: compile of resnet50: no memory".to_owned(); 2],
        ..Outcome::default()
    };
    vec![
        PartReport::new(Part::Kernel(Kernel::Conv2d), 3.2, kernel),
        PartReport::new(Part::Speed, 12.0, speed),
        PartReport::new(Part::Workload(Workload::ResNet50), 80.0, workload),
    ]
}

#[test]
fn a_table_holds_distances_rates_shares_and_targets() {
    let report = report(sound());
    let table = report.table();
    let line = |start: &str| {
        let found = table.lines().find(|line| line.starts_with(start));
        let words = found.unwrap_or_default().split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        line("kernel/conv2d"),
        "kernel/conv2d 2 ok 0.40 1x1: gradient of input 0"
    );
    assert_eq!(line("SGD"), "SGD 2.000 2250 GB/s 75 %");
    assert_eq!(line("upload"), "upload 1.000 50 GB/s");
    assert_eq!(
        line("ResNet-50 step  "),
        "ResNet-50 step 128.000 2000 images/s"
    );
    assert_eq!(
        line("resnet50, eager"),
        "resnet50, eager 128.00 160.00 1.25 21.00 GB 24.00 GB"
    );
    assert_eq!(
        line("ResNet-50 step over"),
        "ResNet-50 step over PyTorch's best at least 1.10 1.25 met"
    );
    assert_eq!(
        line("peak memory, ResNet-50"),
        "peak memory, ResNet-50 step, of PyTorch's least at most 1.00 0.88 met"
    );
    assert!(line("SiMo step over").ends_with("– not measured"));
    assert_eq!(table.matches("NOT COMPARED").count(), 1);
    assert!(table.contains("seconds: kernel/conv2d 3, speed 12, workload/resnet50 80"));
    assert!(report.passed && table.ends_with("PASSED\n"));
}

#[test]
fn missed_targets_do_not_fail_and_numbers_that_are_off_do() {
    let mut parts = sound();
    parts[2].outcome.comparisons[0].speedup = 0.5;
    let slow = report(parts.clone());
    assert!(slow.table().contains("MISSED") && slow.passed);
    for distance in [Some(1.1e-5), None] {
        parts[0].outcome.checks = vec![check("7x7", distance); 7];
        let wrong = report(parts.clone());
        let table = wrong.table();
        assert!(!wrong.passed && table.ends_with("FAILED\n"), "{table}");
        assert_eq!(table.matches("FAILED  kernel/conv2d, 7x7").count(), 5);
        assert!(table.contains("FAILED  kernel/conv2d: 2 more"));
    }
    parts = sound();
    parts[1].outcome.error = Some("the device is lost".to_owned());
    let lost = report(parts);
    assert!(!lost.passed);
    assert!(lost.table().contains("FAILED  speed: the device is lost"));
    assert!(
        !report(Vec::new()).passed,
        "nothing checked is nothing passed"
    );
}

#[test]
fn no_line_is_longer_than_a_hundred_columns_and_no_message_is_cut() {
    let mut parts = sound();
    let message = "Z".repeat(250);
    parts[0].outcome.checks[0].name = "y".repeat(150);
    parts[1].outcome.error = Some(message.clone());
    let table = report(parts).table();
    let longest = table.lines().map(|line| line.chars().count()).max();
    assert_eq!(longest, Some(100), "{table}");
    assert_eq!(table.matches('Z').count(), 250, "{table}");
    assert!(table.contains('…'));
}

#[test]
fn json_holds_everything() -> serde_json::Result<()> {
    let json = serde_json::to_value(report(sound()))?;
    assert_eq!(json["parts"][0]["name"], "kernel/conv2d");
    assert_eq!(json["parts"][0]["checks"][1]["distance"], 2e-6);
    assert_eq!(
        json["parts"][2]["comparisons"][0]["their_peak_bytes"],
        24_000_000_000u64
    );
    assert_eq!(json["targets"][0]["found"], 1.25);
    assert_eq!(json["targets"][0]["wanted"]["at_least"], 1.1);
    assert_eq!(json["passed"], true);
    Ok(())
}
