//! Parts in processes of their own.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::outcome::Outcome;

/// What stands before a part's outcome on its stdout.
pub const MARK: &str = "outcome: ";

/// Runs `command`, which prints [`MARK`] and an outcome as JSON on one line, for so long at most. A process that says nothing, crashes
/// or hangs gives an outcome that says so, and what it had to say before.
pub fn run(mut command: Command, limit: Duration) -> Outcome {
    match finish(&mut command, limit) {
        Ok((text, end)) => outcome(&text, end),
        Err(error) => Outcome::broken(format!("{error:#}")),
    }
}

/// How a process came to its end.
#[derive(Debug)]
enum End {
    Exited(ExitStatus),
    Stopped(Duration),
}

fn finish(command: &mut Command, limit: Duration) -> Result<(String, End)> {
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("the part's process cannot be started")?;
    let mut output = process.stdout.take().context("nothing to read from")?;
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What can be read before a crash counts.
        let _ = output.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let start = Instant::now();
    let end = loop {
        if let Some(status) = process.try_wait()? {
            break End::Exited(status);
        }
        if start.elapsed() > limit {
            process.kill()?;
            process.wait()?;
            break End::Stopped(limit);
        }
        thread::sleep(Duration::from_millis(20));
    };
    // A grandchild may hold the pipe: PyTorch's ends when it can ask nobody.
    let text = reader.join().unwrap_or_default();
    Ok((text, end))
}

fn outcome(text: &str, end: End) -> Outcome {
    let line = text.lines().rev().find_map(|line| line.strip_prefix(MARK));
    let told = line.map(serde_json::from_str::<Outcome>);
    let problem = match (&told, end) {
        (_, End::Stopped(limit)) => format!("stopped after {} s without an end", limit.as_secs()),
        (Some(Err(error)), _) => format!("its outcome cannot be read: {error}"),
        (Some(Ok(_)), End::Exited(status)) if status.success() => String::new(),
        (_, End::Exited(status)) => format!("its process ended with {status}"),
    };
    let mut outcome = told.and_then(Result::ok).unwrap_or_default();
    if !problem.is_empty() {
        outcome.error = Some(match outcome.error.take() {
            Some(error) => format!("{error}; {problem}"),
            None => problem,
        });
    }
    outcome
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, limit)
    }

    const LONG: Duration = Duration::from_secs(60);
    const OUTCOME: &str = r#"outcome: {"checks":[],"measurements":[],"comparisons":[],"notes":["seen"],"error":null}"#;

    #[test]
    fn an_outcome_is_read_behind_whatever_else_is_printed() {
        let outcome = shell(&format!("echo warning; echo '{OUTCOME}'; echo more"), LONG);
        assert_eq!(outcome.notes, ["seen"]);
        assert!(outcome.passed());
    }

    #[test]
    fn crashes_silence_and_nonsense_are_errors_and_keep_what_was_found() {
        let error = |script: &str| shell(script, LONG).error.unwrap_or_default();
        assert!(error("exit 0").contains("ended with exit status: 0"));
        assert!(error("kill -SEGV $$").contains("signal: 11"));
        assert!(error("echo 'outcome: {}'").contains("cannot be read: missing field"));
        let crashed = shell(&format!("echo '{OUTCOME}'; exit 3"), LONG);
        assert_eq!(crashed.notes, ["seen"]);
        assert!(!crashed.passed());
        let missing = run(Command::new("/no/such/program"), LONG);
        assert!(
            missing
                .error
                .unwrap_or_default()
                .contains("cannot be started")
        );
    }

    #[test]
    fn a_process_that_hangs_is_stopped() {
        let outcome = shell("exec sleep 1000", Duration::from_millis(50));
        assert!(
            outcome
                .error
                .unwrap_or_default()
                .starts_with("stopped after 0 s")
        );
    }
}
