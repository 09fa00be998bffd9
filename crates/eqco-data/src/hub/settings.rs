//! Hugging Face's environment variables.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// A token of a user. It cannot be printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token; `None` if it is empty or cannot stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        is_plain.then(|| Self(text.to_owned()))
    }

    /// The header `Authorization`.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// Where the hub is, where its files are kept here, and who asks.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// The hub's address without a slash at the end.
    pub endpoint: String,
    /// The folder of the cache, which Hugging Face's other programs share.
    pub cache: PathBuf,
    /// Sent to the endpoint alone.
    pub token: Option<Token>,
    /// Whether only the cache is used.
    pub offline: bool,
}

impl HubSettings {
    /// From `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_HUB_OFFLINE`, with the defaults of
    /// Hugging Face's programs: `https://huggingface.co`, `~/.cache/huggingface`, and the token that `huggingface-cli login`
    /// has left there.
    ///
    /// # Errors
    /// That there is no home folder to keep files in.
    pub fn from_environment() -> Result<Self, String> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name| variable(name).map(PathBuf::from);
        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| {
                let home = path("HOME").or_else(|| path("USERPROFILE"))?;
                Some(home.join(".cache/huggingface"))
            })
            .ok_or("no HF_HOME and no HOME, so there is no folder to keep files of the hub in")?;
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN").and_then(|token| Token::new(&token));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            token: token.or_else(|| read_token(&token_file)),
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
        })
    }
}

fn read_token(file: &Path) -> Option<Token> {
    Token::new(&std::fs::read_to_string(file).ok()?)
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_those_of_hugging_face() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let settings = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(known, _)| *known == name);
            HubSettings::from_variables(|name| find(name).map(|(_, value)| value.into())).unwrap()
        };
        let usual = settings(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0"), ("HF_TOKEN", "")]);
        assert_eq!(usual.endpoint, "https://huggingface.co");
        assert_eq!(usual.cache, Path::new("/h/.cache/huggingface/hub"));
        assert!(usual.token.is_none() && !usual.offline);

        let moved = settings(&[
            ("HF_HOME", home),
            ("HF_ENDPOINT", "http://x/"),
            ("HF_HUB_OFFLINE", "1"),
        ]);
        assert_eq!((&moved.endpoint[..], moved.offline), ("http://x", true));
        assert_eq!(moved.cache, folder.path().join("hub"));
        assert_eq!(moved.token.as_ref().unwrap().header(), "Bearer hf_file");
        assert!(!format!("{moved:?}").contains("hf_file"));

        let named = settings(&[
            ("HF_HOME", home),
            ("HF_TOKEN", "hf_env"),
            ("HF_HUB_CACHE", "/c"),
        ]);
        assert_eq!(named.token.unwrap().header(), "Bearer hf_env");
        assert_eq!(named.cache, Path::new("/c"));
        assert!(HubSettings::from_variables(|_| None).is_err());
        assert!(Token::new("two\nlines").is_none());
    }
}
