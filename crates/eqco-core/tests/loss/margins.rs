//! The margin rule and the ways to name alpha.

use eqco_core::{Alpha, LossConfig, LossError, margin};

#[test]
fn the_margin_is_zero_for_infonce_and_follows_the_rule_otherwise() {
    let at = |alpha| LossConfig {
        temperature: 0.2,
        alpha,
    };
    assert_eq!(at(Alpha::Infonce).margin(16), 0.0);
    assert_eq!(at(Alpha::Decoupled).margin(16), 0.0);
    assert_eq!(at(Alpha::Equivalent(256.0)).margin(16), 0.2 * 16f64.ln());
    assert_eq!(margin(0.2, 256.0, 256), 0.0);
    assert!(margin(0.2, 1.0, 16) < 0.0);
}

#[test]
fn alpha_as_a_number() {
    assert_eq!(Alpha::Infonce.value(16), 16.0);
    assert_eq!(Alpha::Equivalent(256.0).value(16), 256.0);
    assert_eq!(Alpha::Decoupled.value(16), f64::INFINITY);
}

#[test]
fn alpha_reads_what_it_writes() {
    let texts = [
        (Alpha::Infonce, "infonce"),
        (Alpha::Decoupled, "decoupled"),
        (Alpha::Equivalent(65536.0), "65536"),
        (Alpha::Equivalent(0.25), "0.25"),
    ];
    for (alpha, text) in texts {
        assert_eq!(alpha.to_string(), text);
        assert_eq!(text.parse::<Alpha>().expect("readable"), alpha);
        let json = serde_json::to_string(&alpha).expect("writable");
        assert_eq!(
            serde_json::from_str::<Alpha>(&json).expect("readable"),
            alpha
        );
    }
    for text in ["", "InfoNCE", "0", "-1", "nan", "inf"] {
        let error = text.parse::<Alpha>().expect_err("not an alpha");
        assert!(
            matches!(error, LossError::Alpha { .. } | LossError::AlphaText { .. }),
            "{text}"
        );
    }
}

#[test]
fn the_configuration_reads_numbers_names_and_nothing_else() {
    let read = |text: &str| serde_json::from_str::<LossConfig>(text);
    let expected = LossConfig {
        temperature: 0.2,
        alpha: Alpha::Equivalent(256.0),
    };
    for alpha in ["256", "256.0", "\"256\""] {
        let text = format!(r#"{{"temperature": 0.2, "alpha": {alpha}}}"#);
        assert_eq!(read(&text).expect("readable"), expected);
    }
    let text = serde_json::to_string(&expected).expect("writable");
    assert_eq!(text, r#"{"temperature":0.2,"alpha":256.0}"#);
    let named = read(r#"{"temperature": 0.1, "alpha": "decoupled"}"#).expect("readable");
    assert_eq!(named.alpha, Alpha::Decoupled);
    for (text, word) in [
        (
            r#"{"temperature": 0.2, "alpha": 256, "tau": 1}"#,
            "unknown field `tau`",
        ),
        (r#"{"temperature": 0.2}"#, "missing field `alpha`"),
        (r#"{"temperature": 0.2, "alpha": "dcl"}"#, "alpha must be"),
        (r#"{"temperature": 0.2, "alpha": -3}"#, "above 0"),
        (r#"{"temperature": 0.2, "alpha": true}"#, "a number above 0"),
    ] {
        let error = read(text).expect_err("not a configuration").to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn ranges_are_checked() {
    for temperature in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        let config = LossConfig {
            temperature,
            alpha: Alpha::Infonce,
        };
        assert!(matches!(
            config.validate(),
            Err(LossError::Temperature { .. })
        ));
    }
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let config = LossConfig {
            temperature: 0.2,
            alpha: Alpha::Equivalent(alpha),
        };
        assert!(matches!(config.validate(), Err(LossError::Alpha { .. })));
    }
}
