//! `cargo xtask cuda-toolchain`: what building with feature `cuda` needs, without root and without a GPU.
//!
//! NVIDIA publishes the parts of the toolkit as Python wheels. They are fetched like a data set, and then get what the wheels
//! lack: the names that the linker looks for, a driver to link to, and a file with the environment of a build.

mod driver_stub;
mod environment;
mod libraries;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use indicatif::HumanBytes;

use crate::fetch::{self, Manifest, Manners};
use crate::{repository, unix_files};
use environment::Environment;

/// The release: the manifest's name, and that of the folder it is unpacked to.
const RELEASE: &str = "cuda-13.0";
/// Where in the unpacked wheels the toolkit is.
const TOOLKIT: &str = "nvidia/cu13";

/// Install what building with feature cuda needs: Linux, x86-64, no root.
///
/// Takes 1.0 GB of downloads and 1.7 GB on disk, together while it runs. An interrupted run is taken up where it stopped. A
/// C compiler must be there. Proxies are not used: where one is needed, bring the files by other means and name them with
/// --from.
#[derive(clap::Args)]
pub struct Arguments {
    /// Install into this folder rather than .cuda of the repository
    folder: Option<PathBuf>,
    /// Take wheels that are already on disk: a folder that holds them, or one of them
    #[arg(long, value_name = "PATH")]
    from: Vec<PathBuf>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    check_machine(std::env::consts::OS, std::env::consts::ARCH)?;
    let folder = match &arguments.folder {
        Some(folder) => std::path::absolute(folder)?,
        None => default_folder(),
    };
    let manifest = Manifest::load(&repository::root().join("data/toolchain"), RELEASE)?;
    let changed = install(&manifest, &arguments.from, &folder, Manners::default())
        .context("the CUDA toolchain is not installed")?;
    println!("{}", report(&folder, changed));
    Ok(())
}

/// `bin/nvcc` of the toolchain in the default folder, which need not exist.
pub fn default_nvcc() -> PathBuf {
    toolkit(&default_folder()).join("bin/nvcc")
}

fn default_folder() -> PathBuf {
    repository::root().join(".cuda")
}

fn toolkit(folder: &Path) -> PathBuf {
    folder.join(RELEASE).join(TOOLKIT)
}

/// The wheels hold programs and libraries of one kind of machine.
fn check_machine(system: &str, processor: &str) -> Result<()> {
    if (system, processor) == ("linux", "x86_64") {
        return Ok(());
    }
    bail!(
        "the toolchain is for linux on x86_64, and this is {system} on {processor}\n\
         hint: install CUDA 13 from https://developer.nvidia.com/cuda-downloads and set CUDA_HOME, or build in a container"
    )
}

/// Makes sure that all is in `folder`; true when something had to be done.
fn install(manifest: &Manifest, from: &[PathBuf], folder: &Path, manners: Manners) -> Result<bool> {
    let environment = Environment::new(folder, &toolkit(folder))?;
    // Before the download, which takes minutes.
    let compiler = driver_stub::compiler()?;
    let mut changed = false;
    if !fetch::is_complete(manifest, &folder.join(&manifest.name)) {
        let size = HumanBytes(manifest.download_bytes());
        eprintln!("{size} of wheels, less what an earlier run or --from has brought");
        fetch::fetch(manifest, from, folder, manners)?;
        changed = true;
    }
    let toolkit = toolkit(folder);
    ensure!(
        toolkit.join("include/cuda.h").is_file(),
        "{} is not there after unpacking\nhint: remove {} and try again",
        toolkit.join("include/cuda.h").display(),
        folder.join(&manifest.name).display()
    );
    changed |= libraries::link(&toolkit)?;
    changed |= driver_stub::build(&toolkit, &compiler)?;
    changed |= environment.write()?;
    Ok(changed)
}

fn report(folder: &Path, changed: bool) -> String {
    let verdict = if changed {
        "installed"
    } else {
        "all is there already"
    };
    let environment = folder.join(environment::FILE);
    format!(
        "{RELEASE}: {verdict} in {}\n\
         next, in each shell that builds:\n    \
             . {}\n    \
             cargo check -p eqco-core --features cuda\n\
         what is built runs where NVIDIA's driver is, with\n    \
             LD_LIBRARY_PATH={}",
        folder.display(),
        unix_files::quoted(&environment.to_string_lossy()),
        unix_files::quoted(&toolkit(folder).join("lib").to_string_lossy()),
    )
}
