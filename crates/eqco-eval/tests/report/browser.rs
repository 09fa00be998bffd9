//! The page in a real browser, where one is installed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pages::assert_self_contained;
use crate::run_folders::{report, succeeded, write_sweep};

/// The browser in the search path, if there is one.
fn chromium() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    let names = ["chromium", "chromium-browser"];
    let mut candidates = folders
        .iter()
        .flat_map(|folder| names.map(|name| folder.join(name)));
    candidates.find(|path| path.is_file())
}

#[test]
fn a_browser_shows_the_page_and_has_nothing_to_refuse() {
    let folder = tempfile::tempdir().unwrap();
    write_sweep(&folder.path().join("sweep"));
    let page = folder.path().join("report.html");
    succeeded(&report(&[folder.path()], &page, &["--limit", "40"]));
    let html = fs::read_to_string(&page).unwrap();
    assert_self_contained(&html);
    let Some(chromium) = chromium() else {
        println!("no chromium: the page was checked as text alone");
        return;
    };
    let (dom, console) = open(&chromium, &page, folder.path());
    let charts = html.matches("<figure id=").count();
    assert!(charts >= 14, "{charts}");
    assert_eq!(dom.matches("<figure id=").count(), charts);
    assert_eq!(dom.matches("</svg>").count(), charts);
    assert!(
        dom.contains("47.00 ± 1.41 (2)"),
        "letters beyond ASCII survive"
    );
    assert_eq!(
        console, [""; 0],
        "the page's policy had to refuse something"
    );

    // The same page with something to refuse, so that silence means what it seems to mean.
    let outside =
        "<img src=\"http://127.0.0.1:9/a.png\"><script>document.title = 'ran'</script></body>";
    fs::write(&page, html.replace("</body>", outside)).unwrap();
    let (dom, console) = open(&chromium, &page, folder.path());
    assert_eq!(console.len(), 2, "{console:?}");
    assert!(
        console
            .iter()
            .all(|line| line.contains("Content Security Policy")),
        "{console:?}"
    );
    assert!(!dom.contains("<title>ran</title>"));
}

/// The document as the browser understood it, and the lines of its console.
fn open(chromium: &Path, page: &Path, folder: &Path) -> (String, Vec<String>) {
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args([
            "--disable-sync",
            "--disable-quic",
            "--enable-logging=stderr",
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (dom, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{log}");
    let console = log.lines().filter(|line| line.contains("CONSOLE"));
    (dom, console.map(str::to_owned).collect())
}
