//! Tests of the alarm on made-up figures.

use super::*;

const CONFIG: CollapseConfig = CollapseConfig {
    grace_steps: 10,
    window_steps: 5,
    least_rank_share: 0.1,
    least_deviation: 0.1,
    least_top1_over_chance: 1.5,
};

/// A step of a run that learns: of 11 directions 6, well spread, 60 % found among 3 negatives.
fn healthy(step: u64) -> Sight {
    Sight {
        step,
        contrast_top1: 0.6,
        geometry: Some(Geometry {
            alignment: 0.5,
            uniformity: -2.0,
            effective_rank: 6.0,
            most_rank: 11.0,
            deviation: 0.8,
        }),
    }
}

fn collapsed(step: u64) -> Sight {
    Sight {
        step,
        contrast_top1: 0.25,
        geometry: Some(Geometry {
            alignment: 0.0,
            uniformity: 0.0,
            effective_rank: 1.01,
            most_rank: 11.0,
            deviation: 0.01,
        }),
    }
}

fn alarms(sights: impl Iterator<Item = Sight>) -> Vec<Alarm> {
    let mut alarm = CollapseAlarm::new(CONFIG, 3);
    sights.flat_map(|sight| alarm.look(&sight)).collect()
}

#[test]
fn a_healthy_run_raises_no_alarm_and_a_bad_moment_none_either() {
    assert_eq!(alarms((0..500).map(healthy)), []);
    // Bad before anybody looks, and then in four of every five steps.
    let moments = |step| match step < 10 || step % 5 != 0 {
        true => Sight {
            contrast_top1: 0.6,
            ..collapsed(step)
        },
        false => healthy(step),
    };
    assert_eq!(alarms((0..500).map(moments)), []);
}

#[test]
fn a_collapsed_run_is_told_of_every_symptom_once_and_with_its_causes() {
    let found = alarms((0..500).map(collapsed));
    let symptoms: Vec<_> = found
        .iter()
        .map(|alarm| (alarm.symptom, alarm.step, alarm.since))
        .collect();
    assert_eq!(
        symptoms,
        [
            (Symptom::EffectiveRank, 14, 10),
            (Symptom::Deviation, 14, 10),
            (Symptom::ContrastTop1, 14, 10)
        ]
    );
    // Of 11 directions a tenth of the 10 beside the first; 1.5 times one of four.
    let thresholds: Vec<_> = found.iter().map(|alarm| alarm.threshold).collect();
    assert_eq!(thresholds, [2.0, 0.1, 0.375]);
    let said = found[1].to_string();
    assert!(
        said.starts_with(
            "WARNING  all images get nearly the same embedding: deviation by dimension, 1 for an even spread, is 0.0100 at \
             step 14, and has been below 0.1000 (run.collapse.least_deviation) since step 10. Usual causes: a learning rate"
        ),
        "{said}"
    );
}

#[test]
fn a_threshold_of_zero_leaves_its_figure_out() {
    let mut config = CONFIG;
    (config.least_rank_share, config.least_deviation) = (0.0, 0.0);
    let mut alarm = CollapseAlarm::new(config, 3);
    let found: Vec<_> = (0..100)
        .flat_map(|step| alarm.look(&collapsed(step)))
        .collect();
    assert_eq!(
        found.iter().map(|alarm| alarm.symptom).collect::<Vec<_>>(),
        [Symptom::ContrastTop1]
    );
    config.least_top1_over_chance = 0.0;
    let mut alarm = CollapseAlarm::new(config, 3);
    assert_eq!(
        (0..100)
            .flat_map(|step| alarm.look(&collapsed(step)))
            .count(),
        0
    );
}

#[test]
fn a_run_that_is_resumed_anywhere_is_told_the_same() {
    let whole = alarms((0..60).map(|step| {
        if step < 20 {
            healthy(step)
        } else {
            collapsed(step)
        }
    }));
    assert_eq!(whole.len(), 3);
    for stop in 0..60 {
        let mut alarm = CollapseAlarm::new(CONFIG, 3);
        let mut found = Vec::new();
        for step in 0..60 {
            if step == stop {
                let text = serde_json::to_string(&alarm.state).unwrap();
                alarm = CollapseAlarm::new(CONFIG, 3);
                alarm.state = serde_json::from_str(&text).unwrap();
            }
            found.extend(alarm.look(&if step < 20 {
                healthy(step)
            } else {
                collapsed(step)
            }));
        }
        assert_eq!(found, whole, "stop {stop}");
    }
}

#[test]
fn thresholds_out_of_range_are_named() {
    assert_eq!(CollapseConfig::default().out_of_range(), None);
    let bad = |change: fn(&mut CollapseConfig)| {
        let mut config = CONFIG;
        change(&mut config);
        config.out_of_range().unwrap().0
    };
    assert_eq!(bad(|c| c.window_steps = 0), "run.collapse.window_steps");
    assert_eq!(
        bad(|c| c.least_rank_share = 1.5),
        "run.collapse.least_rank_share"
    );
    assert_eq!(
        bad(|c| c.least_deviation = -0.1),
        "run.collapse.least_deviation"
    );
    assert_eq!(
        bad(|c| c.least_top1_over_chance = f64::NAN),
        "run.collapse.least_top1_over_chance"
    );
}
