//! PyTorch in a process beside ours, which computes when it is asked to.
//!
//! The script and the network that it builds are in the program. One answer a line: see `python/gpu_check_torch.py`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::part::Workload;

const SCRIPTS: [(&str, &str); 2] = [
    (
        "gpu_check_torch.py",
        include_str!("../../../../python/gpu_check_torch.py"),
    ),
    (
        "train_step_torch.py",
        include_str!("../../../../python/train_step_torch.py"),
    ),
];

/// Which PyTorch, and where it computes.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// The program.
    pub python: PathBuf,
    /// `cuda`, or `cpu` to try the script where there is no GPU.
    pub device: &'static str,
    /// Narrow networks, few images.
    pub is_small: bool,
}

/// How PyTorch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Operation by operation.
    Eager,
    /// `torch.compile`.
    Compile,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Eager, Self::Compile];

    /// The name in tables and for the script.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Compile => "compile",
        }
    }
}

/// What the script says in one line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Ready(Ready),
    Measured(Measured),
    Absent(String),
    Failed(String),
}

/// PyTorch has warmed up.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Ready {
    /// Of torch.
    pub version: String,
    /// What the first steps took, compilation included.
    pub warm_up_seconds: f64,
}

/// Some steps, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Measured {
    /// Of a step.
    pub milliseconds: f64,
    /// The most memory of the device that tensors had at a time.
    pub peak_bytes: Option<u64>,
}

/// There is nothing to compare with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Absent(String);

/// PyTorch, waiting. It ends when this is dropped.
pub struct Peer {
    process: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    /// Holds the scripts.
    _folder: tempfile::TempDir,
    /// What it said after its warm-up.
    pub ready: Ready,
}

impl Peer {
    /// Starts PyTorch and waits until it has warmed up, for so long at most.
    ///
    /// # Errors
    /// [`Absent`] when there is no Python, no torch or no GPU for it; what the script says, and silence.
    pub fn start(
        interpreter: &Interpreter,
        workload: Workload,
        variant: Variant,
        limit: Duration,
    ) -> Result<Self> {
        let folder = tempfile::tempdir().context("no room for PyTorch's script")?;
        for (name, text) in SCRIPTS {
            fs::write(folder.path().join(name), text)?;
        }
        let mut command = Command::new(&interpreter.python);
        command
            .arg(folder.path().join(SCRIPTS[0].0))
            .args(["--workload", workload.name(), "--variant", variant.name()])
            .args(["--device", interpreter.device]);
        if interpreter.is_small {
            command.args(["--small", "--batch", "8", "--size", "32", "--steps", "1"]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Warnings of compilers are of no use beside the table.
        command.stderr(Stdio::null());
        let started = command.spawn();
        let mut process = started.map_err(|error| {
            let python = interpreter.python.display();
            Absent(format!("`{python}` cannot be started: {error}"))
        })?;
        let (requests, output) = (process.stdin.take(), process.stdout.take());
        let (requests, output) = (
            requests.context("no way to ask PyTorch")?,
            output.context("no way to hear PyTorch")?,
        );
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let ready = Ready {
            version: String::new(),
            warm_up_seconds: 0.0,
        };
        let mut peer = Self {
            process,
            requests,
            answers,
            _folder: folder,
            ready,
        };
        match peer.answer(limit)? {
            Message::Ready(ready) => peer.ready = ready,
            Message::Absent(reason) => bail!(Absent(reason)),
            Message::Failed(reason) => bail!("PyTorch: {reason}"),
            other => bail!("expected PyTorch to be ready, it said {other:?}"),
        }
        Ok(peer)
    }

    /// Has some steps timed, and waits for so long at most.
    ///
    /// # Errors
    /// What the script says, and silence.
    pub fn measure(&mut self, limit: Duration) -> Result<Measured> {
        writeln!(self.requests, "measure")
            .and_then(|()| self.requests.flush())
            .context("PyTorch has ended")?;
        match self.answer(limit)? {
            Message::Measured(measured) => Ok(measured),
            Message::Failed(reason) => bail!("PyTorch: {reason}"),
            other => bail!("expected a measurement of PyTorch, it said {other:?}"),
        }
    }

    fn answer(&self, limit: Duration) -> Result<Message> {
        loop {
            let line = match self.answers.recv_timeout(limit) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("PyTorch has said nothing for {} s", limit.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("PyTorch has ended without a word"),
            };
            // Libraries print what they like; the script's lines are objects.
            if line.trim_start().starts_with('{') {
                return message(&line);
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Gone already is gone; its memory on the GPU must be free before anything else is timed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn message(line: &str) -> Result<Message> {
    serde_json::from_str(line).with_context(|| format!("PyTorch's script said `{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_messages_of_the_script_are_understood() -> Result<()> {
        let ready = r#"{"ready": {"version": "2.15.0", "warm_up_seconds": 1.5}}"#;
        let expected = Ready {
            version: "2.15.0".to_owned(),
            warm_up_seconds: 1.5,
        };
        assert_eq!(message(ready)?, Message::Ready(expected));
        for (peak, expected) in [("null", None), ("5", Some(5))] {
            let line = format!(r#"{{"measured": {{"milliseconds": 2.5, "peak_bytes": {peak}}}}}"#);
            let measured = Measured {
                milliseconds: 2.5,
                peak_bytes: expected,
            };
            assert_eq!(message(&line)?, Message::Measured(measured));
        }
        assert_eq!(
            message(r#"{"absent": "no torch"}"#)?,
            Message::Absent("no torch".to_owned())
        );
        assert_eq!(
            message(r#"{"failed": "no memory"}"#)?,
            Message::Failed("no memory".to_owned())
        );
        for line in ["{", r#"{"measured": {}}"#, r#"{"other": 1}"#] {
            let error = message(line).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
        Ok(())
    }

    fn start(python: &str) -> anyhow::Error {
        let interpreter = Interpreter {
            python: python.into(),
            device: "cpu",
            is_small: true,
        };
        let limit = Duration::from_secs(60);
        match Peer::start(&interpreter, Workload::Loss, Variant::Eager, limit) {
            Ok(_) => panic!("`{python}` is no Python"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_python_that_is_not_there_is_absence_and_one_that_says_nothing_an_error() {
        let error = start("/no/such/python3");
        assert!(error.is::<Absent>(), "{error:#}");
        assert!(error.to_string().contains("/no/such/python3"));
        // Ends at once, without a message.
        let error = start("true");
        assert!(!error.is::<Absent>(), "{error:#}");
        assert!(error.to_string().contains("without a word"), "{error}");
    }
}
