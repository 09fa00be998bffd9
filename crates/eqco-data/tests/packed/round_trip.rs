//! What is packed comes back.

use std::borrow::Cow;
use std::fs;
use std::sync::Arc;

use eqco_data::dataset::Synthetic;
use eqco_data::dataset::packed::{Change, Reduction, stored_image};
use eqco_data::decode::decode;
use eqco_data::{Dataset, Image, ImageHeader, Split, encode, limited, open};
use tempfile::tempdir;

use super::{contents, folder_set, opened, pack, packed_folder, picture, text};

#[test]
fn a_folder_comes_back_to_the_byte() {
    let root = tempdir().unwrap();
    let path = packed_folder(root.path());
    for (split, count) in [(Split::Train, 5), (Split::Test, 2)] {
        let source = opened(&root.path().join("set"), split);
        let packed = opened(&path, split);
        assert_eq!((packed.len(), packed.name()), (count, "set"));
        assert_eq!(packed.class_names(), ["cat", "dog"]);
        assert_eq!(contents(&*packed).unwrap(), contents(&*source).unwrap());
        for index in 0..count {
            // What cannot be decoded there cannot be decoded here, for the same reason.
            let reason = |dataset: &dyn Dataset| match dataset.image(index) {
                Ok(image) => Ok(image),
                Err(error) => Err(error.to_string().rsplit_once(": ").unwrap().1.to_owned()),
            };
            assert_eq!(reason(&*packed), reason(&*source), "{index}");
        }
    }
    let train = opened(&path, Split::Train);
    let readable: Vec<bool> = (0..5).map(|index| train.image(index).is_ok()).collect();
    assert_eq!(readable, [true, true, false, true, false]);
    assert!(
        matches!(train.encoded(0), Ok(Some(Cow::Borrowed(_)))),
        "copied"
    );
    let described = train.describe(3);
    assert_eq!(described, format!("{}, training image 3", text(&path)));
}

#[test]
fn pixels_come_back_as_they_were() {
    let root = tempdir().unwrap();
    let path = root.path().join("pixels.eqco");
    let both = [Split::Train, Split::Test];
    let synthetic = |split| Arc::new(Synthetic::new(split, 16, 10).unwrap()) as Arc<dyn Dataset>;
    let embedded = |split| limited(open("embedded", split).unwrap(), 40);
    for [train, test] in [both.map(synthetic), both.map(embedded)] {
        // The second file takes the first one's place.
        pack(
            &path,
            &[(Split::Train, &*train), (Split::Test, &*test)],
            None,
        );
        for (split, source) in [(Split::Train, train), (Split::Test, test)] {
            let packed = opened(&path, split);
            assert_eq!(packed.class_names(), source.class_names());
            assert_eq!(packed.len(), source.len());
            for index in 0..source.len() {
                assert_eq!(packed.label(index), source.label(index));
                assert_eq!(packed.image(index).unwrap(), source.image(index).unwrap());
            }
        }
    }
    // Fashion-MNIST is grey: one channel is stored.
    let bytes = opened(&path, Split::Train);
    assert_eq!(bytes.encoded(0).unwrap().unwrap()[25], 0);
}

#[test]
fn images_without_classes_stay_without() {
    let root = tempdir().unwrap();
    let folder = root.path().join("flat");
    fs::create_dir(&folder).unwrap();
    for number in 0..3 {
        let bytes = encode::png(&picture(number, 4, 3)).unwrap();
        fs::write(folder.join(format!("{number}.png")), bytes).unwrap();
    }
    let path = root.path().join("no name that promises anything");
    pack(
        &path,
        &[(Split::Train, &*opened(&folder, Split::Train))],
        None,
    );
    let packed = opened(&path, Split::Train);
    assert_eq!((packed.len(), packed.class_names().len()), (3, 0));
    assert!((0..3).all(|index| packed.label(index).is_none()));
    assert_eq!(packed.image(2).unwrap(), picture(2, 4, 3));
    let failure = super::failure(&path, Split::Test);
    assert!(
        failure.contains("expected test images, found none"),
        "{failure}"
    );
    assert!(failure.contains("pack --split both"), "{failure}");
}

/// A picture of 60 x 24 pixels whose rows have the values 0, 9, 18, ...
fn stripes() -> Image {
    let pixels = (0..60 * 24 * 3).map(|at| (at / 180 * 9) as u8);
    Image::new(60, 24, pixels.collect()).unwrap()
}

#[test]
fn large_images_are_made_smaller_and_small_ones_stay() {
    let root = tempdir().unwrap();
    let folder = folder_set(root.path());
    let small = encode::png(&picture(1, 20, 12)).unwrap();
    fs::write(folder.join("train/dog/3.png"), &small).unwrap();
    let large = encode::png(&stripes()).unwrap();
    fs::write(folder.join("train/dog/4.png"), large).unwrap();
    let train = opened(&folder, Split::Train);
    let reduction = Reduction::new(20, 90).unwrap();
    let sizes = (0..train.len()).map(|index| {
        let stored = stored_image(&*train, index, Some(reduction)).unwrap();
        if stored.change != Change::Reduced {
            let original = train.encoded(index).unwrap().unwrap();
            assert_eq!(stored.bytes, original);
        }
        match &stored.change {
            Change::Undecodable(reason) => reason.split(':').next().unwrap().to_owned(),
            _ => {
                let header = ImageHeader::of(&stored.bytes, "stored").unwrap();
                format!("{} {} x {}", header.format, header.width, header.height)
            }
        }
    });
    // 61 x 47 pixels become 20 x 15.4.
    let expected = [
        "JPEG 20 x 15",
        "JPEG 20 x 15",
        "neither PNG nor JPEG",
        "JPEG 20 x 15",
        "the file is empty",
        "PNG 20 x 12",
        "JPEG, grey 20 x 8",
    ];
    assert_eq!(sizes.collect::<Vec<_>>(), expected);
    let name = reduction.name_of("set");
    assert_eq!(name, "set, longer side at most 20, JPEG quality 90");
}

#[test]
fn a_smaller_image_shows_the_same_picture() {
    let root = tempdir().unwrap();
    let large = encode::png(&stripes()).unwrap();
    fs::write(root.path().join("1.png"), large).unwrap();
    let source = opened(root.path(), Split::Train);
    let reduction = Reduction::new(20, 90).unwrap();
    let stored = stored_image(&*source, 0, Some(reduction)).unwrap();
    let image = decode(&stored.bytes, "stripes").unwrap();
    assert_eq!((image.width(), image.height()), (20, 8));
    // The borders see less than others of what is beside them.
    for row in 1..7 {
        let expected = 9.0 * (3.0 * row as f64 + 1.0);
        let found = f64::from(image.pixels()[(row * 20 + 10) * 3]);
        assert!(
            (found - expected).abs() < 4.0,
            "row {row}: {found}, not {expected}"
        );
    }
}
