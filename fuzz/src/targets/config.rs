//! Configuration files and the values of flags.

use eqco_train::config::{Resolved, read_assignment};

use crate::{files, input};

/// The first byte says whether the rest is a file (0) or the value of `--set`.
pub fn check(data: &[u8]) {
    let (choice, data) = input::choice(data);
    let resolved = match choice & 1 {
        0 => files::with(&[("config.toml", data)], |root| {
            Resolved::new("demo", Some(&root.join("config.toml")), Vec::new())
        }),
        _ => {
            let setting = read_assignment(&String::from_utf8_lossy(data));
            setting.and_then(|setting| Resolved::new("demo", None, vec![setting]))
        }
    };
    match resolved {
        Ok(resolved) => {
            // What a run folder keeps is read again.
            let written = resolved.config.to_toml();
            let again = files::with(&[("config.toml", written.as_bytes())], |root| {
                Resolved::new("demo", Some(&root.join("config.toml")), Vec::new())
            });
            let again = again.unwrap_or_else(|error| panic!("{error}, of\n{written}"));
            assert_eq!(again.config, resolved.config);
            assert!(!resolved.annotated_toml().is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
