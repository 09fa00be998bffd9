//! Whole installations from a server on this machine.

use std::io::{Cursor, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::*;
use crate::fetch::server::{MANNERS, Server, Treatment};

/// A toolkit of four files as a wheel.
fn wheel() -> Vec<u8> {
    wheel_of(&[
        (
            "nvidia/cu13/include/cuda.h",
            0o644,
            "int cuInit(unsigned int);",
        ),
        (
            "nvidia/cu13/bin/nvcc",
            0o755,
            "#!/bin/sh\necho compiled \"$@\"\n",
        ),
        ("nvidia/cu13/lib/libcublas.so.13", 0o755, "library"),
        ("nvidia/cudnn/lib/libcudnn.so.9", 0o755, "library"),
    ])
}

fn wheel_of(files: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, content) in files {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(*mode);
        writer.start_file(*name, options).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A manifest for `content` at `url`.
fn manifest(content: &[u8], url: &str) -> Manifest {
    let digest = Sha256::digest(content);
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!(
        r#"
        title = "A test"
        homepage = "https://example.org"
        licence = "MIT"
        format = "toolkit"
        max_unpacked_bytes = 10000
        [[file]]
        name = "toolkit.whl"
        urls = ["{url}"]
        bytes = {}
        sha256 = "{sha256}"
        unpack = {{ kind = "zip" }}
        "#,
        content.len()
    );
    Manifest::parse(RELEASE, &text).unwrap()
}

fn complaint(outcome: Result<bool>) -> String {
    format!("{:#}", outcome.unwrap_err())
}

#[test]
fn the_manifest_is_right_and_its_wheels_are_for_one_machine() {
    let manifests = repository::root().join("data/toolchain");
    let manifest = Manifest::load(&manifests, RELEASE).unwrap();
    assert_eq!(manifest.files.len(), 10);
    for file in &manifest.files {
        assert!(file.name.ends_with("x86_64.whl"), "{}", file.name);
        let [url] = file.urls.as_slice() else {
            panic!("{} has {:?}", file.name, file.urls);
        };
        assert!(
            url.starts_with("https://files.pythonhosted.org/packages/"),
            "{url}"
        );
        assert!(url.ends_with(&format!("/{}", file.name)), "{url}");
    }
    let cudnn = &manifest.files[8];
    assert!(
        cudnn.name.starts_with("nvidia_cudnn_cu13-9.19.0.56-"),
        "{}",
        cudnn.name
    );
    assert_eq!(manifest.download_bytes(), 1_239_936_383);
}

#[cfg(target_os = "linux")]
#[test]
fn an_installation_compiles_and_is_not_made_twice() {
    let server = Server::start(wheel(), |_, _| Treatment::Serve);
    let manifest = manifest(&wheel(), &server.address);
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("it's here");
    assert!(install(&manifest, &[], &folder, MANNERS).unwrap());

    let lib = folder.join("cuda-13.0/nvidia/cu13/lib");
    for library in ["libcublas.so", "libcudnn.so", "libcudnn.so.9"] {
        assert_eq!(
            std::fs::read(lib.join(library)).unwrap(),
            b"library",
            "{library}"
        );
    }
    assert!(lib.join("stubs/libcuda.so").is_file());
    let script = ". ./env.sh && nvcc one && \"$NVCC\" two";
    let mut shell = std::process::Command::new("sh");
    let told = unix_files::printed(shell.args(["-c", script]).current_dir(&folder));
    assert_eq!(told, "compiled one\ncompiled --compress-mode=size two\n");

    let asked = server.asked().len();
    assert!(!install(&manifest, &[], &folder, MANNERS).unwrap());
    assert_eq!(
        server.asked().len(),
        asked,
        "the second run needs no network"
    );
    // What got lost is made again, without a download.
    std::fs::remove_file(folder.join("env.sh")).unwrap();
    assert!(install(&manifest, &[], &folder, MANNERS).unwrap());
    assert_eq!(server.asked().len(), asked);
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_installation_is_taken_up() {
    let failing = Server::start(wheel(), |request, _| match request {
        0 => Treatment::Serve,
        _ => Treatment::CutAfter(100),
    });
    let patient_once = Manners {
        attempts: 1,
        segment_bytes: 100,
        ..MANNERS
    };
    let refusing = Server::start(wheel(), |request, _| match request {
        0..=2 => Treatment::Serve,
        _ => Treatment::Refuse("503 Service Unavailable"),
    });
    let out = tempfile::tempdir().unwrap();
    let told = complaint(install(
        &manifest(&wheel(), &refusing.address),
        &[],
        out.path(),
        patient_once,
    ));
    assert!(told.contains("503 Service Unavailable"), "{told}");
    assert!(told.contains("hint: "), "{told}");
    assert!(!out.path().join("env.sh").exists());

    assert!(
        install(
            &manifest(&wheel(), &failing.address),
            &[],
            out.path(),
            patient_once
        )
        .unwrap()
    );
    let segments = wheel().len().div_ceil(100);
    assert_eq!(
        failing.asked().len(),
        1 + segments - 2,
        "two segments were there"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn other_content_is_refused() {
    let mut altered = wheel();
    altered[50] ^= 1;
    let server = Server::start(altered.clone(), |_, _| Treatment::Serve);
    let manifest = manifest(&wheel(), &server.address);
    let out = tempfile::tempdir().unwrap();
    let told = complaint(install(&manifest, &[], out.path(), MANNERS));
    assert!(
        told.contains(&format!("expected sha256 {}", manifest.files[0].sha256)),
        "{told}"
    );
    assert!(told.contains("hint: "), "{told}");
    assert!(!out.path().join(RELEASE).exists());

    let wrong = out.path().join("toolkit.whl");
    std::fs::write(&wrong, altered).unwrap();
    let told = complaint(install(&manifest, &[wrong], out.path(), MANNERS));
    assert!(told.contains("is not the published file"), "{told}");
    assert!(
        told.contains("hint: take it from http://127.0.0.1"),
        "{told}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_wheel_that_leads_out_of_the_folder_or_lacks_the_header_is_refused() {
    for (name, expected) in [
        ("nvidia/../../../escaped", "leads out of the folder"),
        (
            "nvidia/cu13/readme",
            "cuda.h is not there after unpacking\nhint: remove",
        ),
    ] {
        let bad = wheel_of(&[(name, 0o644, "content")]);
        let server = Server::start(bad.clone(), |_, _| Treatment::Serve);
        let out = tempfile::tempdir().unwrap();
        let folder = out.path().join("inner");
        let told = complaint(install(
            &manifest(&bad, &server.address),
            &[],
            &folder,
            MANNERS,
        ));
        assert!(told.contains(expected), "{told}");
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1);
        assert!(!folder.join("env.sh").exists());
    }
}

#[test]
fn other_machines_are_told_what_to_do() {
    check_machine("linux", "x86_64").unwrap();
    for (system, processor) in [
        ("linux", "aarch64"),
        ("macos", "x86_64"),
        ("windows", "x86_64"),
    ] {
        let told = check_machine(system, processor).unwrap_err().to_string();
        assert!(
            told.contains(&format!("this is {system} on {processor}")),
            "{told}"
        );
        assert!(told.contains("hint: install CUDA 13"), "{told}");
    }
}

#[test]
fn the_report_says_what_to_do_next() {
    let told = report(Path::new("/opt/eqco"), false);
    assert!(
        told.starts_with("cuda-13.0: all is there already in /opt/eqco\n"),
        "{told}"
    );
    assert!(told.contains("\n    . '/opt/eqco/env.sh'\n"), "{told}");
    let libraries = "LD_LIBRARY_PATH='/opt/eqco/cuda-13.0/nvidia/cu13/lib'";
    assert!(told.ends_with(libraries), "{told}");
    assert!(report(Path::new("/x"), true).starts_with("cuda-13.0: installed in /x\n"));
}
