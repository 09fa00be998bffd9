//! Writes images in the forms that data sets come in, for `cargo xtask bench loader`.
//!
//! `source_forms all PHOTOGRAPHS TARGET`: the photographs of a flat folder as `folder/`, `tar/`, `shards/`, `parquet/` and
//! `packed.eqco`. `source_forms tar|packed COUNT TARGET`: COUNT images of a few bytes in 1,000 classes, as ImageNet's archive of
//! training images or as a packed file.

#[path = "../tests/source_forms/mod.rs"]
mod forms;

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use eqco_data::dataset::packed::PackWriter;
use eqco_data::{Split, open};
use forms::Labelled;
use tar::Header;

type Outcome = Result<(), Box<dyn Error>>;

/// All photographs are of one class: every form has labels.
const CLASSES: [&str; 1] = ["photograph"];

/// Classes of the index that is as large as ImageNet's.
const MANY_CLASSES: u32 = 1000;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [form, source, target] = &arguments[..] else {
        return Err("expected all PHOTOGRAPHS TARGET, or tar|packed COUNT TARGET".into());
    };
    let target = Path::new(target);
    match form.as_str() {
        "all" => all_forms(source, target),
        "tar" => many_in_tar(source.parse()?, target),
        "packed" => many_packed(source.parse()?, target),
        other => Err(format!("expected all, tar or packed, found {other}").into()),
    }
}

fn all_forms(photographs: &str, target: &Path) -> Outcome {
    let source = open(photographs, Split::Train)?;
    let mut images: Vec<Labelled> = Vec::new();
    for index in 0..source.len() {
        let bytes = source.encoded(index)?.ok_or("expected image files")?;
        images.push((0, bytes.into_owned()));
    }
    let folder = |name: &str| -> Result<_, Box<dyn Error>> {
        let folder = target.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    let write = |path: &Path, bytes: Vec<u8>| fs::write(path, bytes);
    forms::class_folders(&folder("folder")?.join("train"), &CLASSES, &images, "jpg")?;
    let archive = forms::archive_of_archives(&CLASSES, &images, "JPEG")?;
    write(&folder("tar")?.join("ILSVRC2012_img_train.tar"), archive)?;
    write(
        &folder("shards")?.join("train-0.tar"),
        forms::shard(&images, "jpg")?,
    )?;
    let parquet = forms::parquet_file::of(&CLASSES, &images);
    write(
        &folder("parquet")?.join("train-00000-of-00001.parquet"),
        parquet,
    )?;
    let classes = CLASSES.map(str::to_owned);
    let mut packed = PackWriter::create(&target.join("packed.eqco"), "photographs", &classes)?;
    for (label, bytes) in &images {
        packed.add(Split::Train, Some(*label), bytes)?;
    }
    packed.finish()?;
    // What is still to be written would disturb whoever measures.
    #[cfg(unix)]
    // SAFETY: the call takes nothing and gives nothing.
    unsafe {
        libc::sync();
    }
    Ok(())
}

/// Streams the archive: it has a gigabyte for a million images.
fn many_in_tar(count: u32, target: &Path) -> Outcome {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(target)?);
    for class in 0..MANY_CLASSES {
        let images = (class..count).step_by(MANY_CLASSES as usize);
        // Each image takes a block for its header and one for its bytes; two empty blocks end the archive.
        let size = images.len() as u64 * 1024 + 1024;
        out.write_all(header(&format!("n{class:08}.tar"), size)?.as_bytes())?;
        for image in images {
            let name = format!("n{class:08}_{image:07}.JPEG");
            let mut body = [0; 512];
            body[..4].copy_from_slice(&image.to_le_bytes());
            out.write_all(header(&name, 512)?.as_bytes())?;
            out.write_all(&body)?;
        }
        out.write_all(&[0; 1024])?;
    }
    out.write_all(&[0; 1024])?;
    Ok(out.flush()?)
}

fn header(name: &str, size: u64) -> Result<Header, Box<dyn Error>> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

fn many_packed(count: u32, target: &Path) -> Outcome {
    let classes: Vec<String> = (0..MANY_CLASSES)
        .map(|class| format!("n{class:08}"))
        .collect();
    let mut writer = PackWriter::create(target, "many", &classes)?;
    for image in 0..count {
        let label = Some(image % MANY_CLASSES);
        writer.add(Split::Train, label, &image.to_le_bytes())?;
    }
    writer.finish()?;
    Ok(())
}
