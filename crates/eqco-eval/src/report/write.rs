//! Writes the page, and every chart and picture beside it.

use std::fs;
use std::path::{Path, PathBuf};

use super::page::Page;
use super::{Pictures, ReportError, Run};

/// The section with pictures of one run's representation.
#[derive(Clone, Debug)]
pub enum PictureSection {
    /// The pictures.
    Made(Box<Pictures>),
    /// There are none.
    Absent {
        /// Why, in a sentence for people.
        reason: String,
    },
}

/// What [`write_report`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenReport {
    /// The page.
    pub page: PathBuf,
    /// Its size in bytes.
    pub bytes: usize,
    /// Folder with every chart as `.svg` and every picture as `.png`, named after the page.
    pub files: PathBuf,
    /// Charts and pictures.
    pub figures: usize,
}

/// Writes the page about `runs` to `out`, and its charts and pictures into a folder beside it: `report-files` for
/// `report.html`. Files with the same names are replaced. The page needs nothing but itself: neither the folder nor a
/// network.
///
/// # Errors
/// [`ReportError::Unwritable`].
pub fn write_report(
    runs: &[Run],
    pictures: &PictureSection,
    out: &Path,
) -> Result<WrittenReport, ReportError> {
    let page = Page::new(runs, pictures);
    let mut name = out.file_stem().unwrap_or_default().to_owned();
    name.push("-files");
    let files = out.with_file_name(name);
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Unwritable { path, source }
    };
    fs::create_dir_all(&files).map_err(unwritable(&files))?;
    let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).map_err(unwritable(path));
    for figure in &page.figures {
        let path = files.join(format!("{}.svg", figure.stem));
        write(&path, figure.drawing.document().as_bytes())?;
        if let Some(png) = &figure.png {
            write(&path.with_extension("png"), png)?;
        }
    }
    write(out, page.html.as_bytes())?;
    Ok(WrittenReport {
        page: out.to_owned(),
        bytes: page.html.len(),
        files,
        figures: page.figures.len(),
    })
}
