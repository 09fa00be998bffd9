//! The same images in the forms that data sets come in. Whoever needs them includes this folder: tests of several crates, and
//! the loader's benchmark.

pub mod parquet_file;

use std::fs;
use std::io;
use std::path::Path;

use tar::{Builder, Header};

/// An image file and the number of its class.
pub type Labelled = (u32, Vec<u8>);

/// Names that sort as the images do: those of ImageNet's validation images, by which its development kit knows them.
pub fn name(number: usize, ending: &str) -> String {
    format!("ILSVRC2012_val_{:08}.{ending}", number + 1)
}

/// Writes `root/CLASS/NUMBER.ENDING`.
pub fn class_folders(
    root: &Path,
    classes: &[&str],
    images: &[Labelled],
    ending: &str,
) -> io::Result<()> {
    for (number, (class, bytes)) in images.iter().enumerate() {
        let folder = root.join(classes[*class as usize]);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name(number, ending)), bytes)?;
    }
    Ok(())
}

/// A tar archive of these members.
pub fn archive<'a>(members: impl IntoIterator<Item = (String, &'a [u8])>) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content)?;
    }
    builder.into_inner()
}

/// ImageNet's archive of training images: an archive for each class.
pub fn archive_of_archives(
    classes: &[&str],
    images: &[Labelled],
    ending: &str,
) -> io::Result<Vec<u8>> {
    let of_class = |class: u32| {
        let numbered = images.iter().enumerate();
        let members = numbered.filter(|(_, image)| image.0 == class);
        archive(members.map(|(number, image)| (name(number, ending), &image.1[..])))
    };
    let inner = (0..classes.len() as u32).map(of_class);
    let inner = inner.collect::<io::Result<Vec<_>>>()?;
    let names = classes.iter().map(|class| format!("{class}.tar"));
    archive(names.zip(inner.iter().map(Vec::as_slice)))
}

/// A shard of WebDataset's, with the labels in members of their own.
pub fn shard(images: &[Labelled], ending: &str) -> io::Result<Vec<u8>> {
    let labels: Vec<String> = images.iter().map(|image| image.0.to_string()).collect();
    let members = images.iter().zip(&labels).enumerate();
    archive(members.flat_map(|(number, ((_, bytes), label))| {
        let label = (name(number, "cls"), label.as_bytes());
        [(name(number, ending), &bytes[..]), label]
    }))
}
