//! Parts of images, kinds of files that are rare, and our own JPEG decoder beside libjpeg.

use eqco_data::augment::Region;
use eqco_data::decode::{decode, decode_part, size};
use eqco_data::{DataError, Image};

const WIDTH: usize = 61;
const HEIGHT: usize = 47;

/// Decoded by our own decoder.
const BASELINE: [&str; 8] = [
    "444.jpg",
    "422.jpg",
    "420.jpg",
    "440.jpg",
    "411.jpg",
    "grey.jpg",
    "restarts.jpg",
    "optimized.jpg",
];

const OTHER: [&str; 8] = [
    "progressive.jpg",
    "cmyk.jpg",
    "ycck.jpg",
    "rgb.png",
    "palette.png",
    "transparent.png",
    "lossless.webp",
    "lossy.webp",
];

fn golden(file: &str) -> Vec<u8> {
    let path = format!("tests/golden/files/{file}");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn pillows(file: &str) -> Image {
    let expected = format!("{}_expected.png", file.replace('.', "_"));
    decode(&golden(&expected), &expected).unwrap()
}

fn part(file: &str, region: Region) -> Result<Image, DataError> {
    // Memory that held something else.
    decode_part(&golden(file), file, region, vec![77; 1_000])
}

fn region(left: usize, top: usize, width: usize, height: usize) -> Region {
    Region {
        left,
        top,
        width,
        height,
    }
}

/// The same part, cut from the whole.
fn cut(image: &Image, region: Region) -> Vec<u8> {
    let rows = image.pixels().chunks_exact(image.width() * 3);
    let rows = rows.skip(region.top).take(region.height);
    rows.flat_map(|row| &row[region.left * 3..(region.left + region.width) * 3])
        .copied()
        .collect()
}

#[test]
fn baseline_jpegs_are_libjpegs_to_the_bit() {
    for file in BASELINE {
        assert!(
            decode(&golden(file), file).unwrap() == pillows(file),
            "{file}"
        );
    }
}

#[test]
fn rare_kinds_agree_with_pillow() {
    // WebP's colours are enlarged differently; YCCK goes through another decoder's fixed point.
    for (file, allowed, allowed_mean) in [
        ("lossless.webp", 0, 0.0),
        ("lossy.webp", 4, 0.5),
        ("ycck.jpg", 4, 0.5),
    ] {
        let (ours, theirs) = (decode(&golden(file), file).unwrap(), pillows(file));
        let pairs = || ours.pixels().iter().zip(theirs.pixels());
        let largest = pairs().map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let total: f64 = pairs().map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        let mean = total / ours.pixels().len() as f64;
        assert!(
            largest <= allowed && mean <= allowed_mean,
            "{file}: {largest} {mean}"
        );
    }
}

#[test]
fn a_name_says_nothing_about_a_format() {
    for file in ["rgb.png", "lossless.webp"] {
        let misnamed = decode(&golden(file), "n02105855_2933.JPEG").unwrap();
        assert!(misnamed == pillows(file));
    }
}

#[test]
fn sizes_come_from_headers() {
    for file in BASELINE.into_iter().chain(OTHER) {
        let bytes = golden(file);
        assert_eq!(size(&bytes, file).unwrap(), (WIDTH, HEIGHT), "{file}");
        if file.ends_with("jpg") {
            let header = bytes.len() - bytes.len() / 4;
            assert_eq!(size(&bytes[..header], file).unwrap(), (WIDTH, HEIGHT));
        }
    }
}

#[test]
fn parts_are_those_of_the_whole() {
    let sides = |whole: usize| {
        let starts = [0, 1, 7, 8, 15, 16, 17, 31, whole - 1];
        let all = starts.into_iter().flat_map(|start| {
            [1, 2, 9, 16, 30].map(|length: usize| (start, length.min(whole - start)))
        });
        all.chain([(0, whole)]).collect::<Vec<_>>()
    };
    for file in BASELINE {
        let whole = decode(&golden(file), file).unwrap();
        for &(top, height) in &sides(HEIGHT) {
            for &(left, width) in &sides(WIDTH) {
                let region = region(left, top, width, height);
                let part = part(file, region).unwrap();
                assert_eq!((part.width(), part.height()), (width, height));
                assert!(part.pixels() == cut(&whole, region), "{file} {region:?}");
            }
        }
    }
    for file in OTHER {
        let whole = decode(&golden(file), file).unwrap();
        let region = region(5, 9, 41, 30);
        assert!(
            part(file, region).unwrap().pixels() == cut(&whole, region),
            "{file}"
        );
    }
}

#[test]
fn parts_outside_are_errors() {
    for file in ["420.jpg", "rgb.png"] {
        for outside in [
            region(0, 0, WIDTH + 1, 1),
            region(WIDTH, 0, 1, 1),
            region(0, 40, 1, 8),
            region(0, 0, 0, 1),
            region(usize::MAX, 0, 2, 1),
        ] {
            let message = part(file, outside).unwrap_err().to_string();
            assert!(message.contains("61 x 47 pixels"), "{message}");
        }
    }
}

#[test]
fn a_file_without_its_end_is_an_error_whatever_part_is_needed() {
    for file in [
        "444.jpg",
        "420.jpg",
        "restarts.jpg",
        "lossless.webp",
        "lossy.webp",
    ] {
        let bytes = golden(file);
        for length in 0..bytes.len() - 1 {
            let cut = &bytes[..length];
            assert!(
                decode_part(cut, file, region(0, 0, 1, 1), Vec::new()).is_err(),
                "{file} cut to {length} bytes"
            );
        }
    }
}

#[test]
fn missing_rows_are_an_error_where_they_are_needed_and_pass_where_they_are_not() {
    for file in ["444.jpg", "420.jpg", "restarts.jpg"] {
        let bytes = golden(file);
        let half = [&bytes[..bytes.len() * 3 / 4], &[0xff, 0xd9]].concat();
        let top = region(0, 0, WIDTH, 8);
        let made = decode_part(&half, file, top, Vec::new()).unwrap();
        assert!(made.pixels() == cut(&pillows(file), top), "{file}");
        let bottom = region(0, HEIGHT - 1, 1, 1);
        let message = decode_part(&half, file, bottom, Vec::new())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("truncated") || message.contains("damaged"),
            "{message}"
        );
    }
}

#[test]
fn damage_between_restart_markers_does_not_pass() {
    let bytes = golden("restarts.jpg");
    let is_restart = |pair: &[u8]| pair[0] == 0xff && (0xd0..=0xd7).contains(&pair[1]);
    let first = bytes.windows(2).position(is_restart).unwrap();
    // A byte more, a byte less, another number, and no marker at all.
    let longer = [&bytes[..first], &[0x55], &bytes[first..]].concat();
    let shorter = [&bytes[..first - 1], &bytes[first..]].concat();
    let mut renumbered = bytes.clone();
    renumbered[first + 1] ^= 1;
    let unmarked = [&bytes[..first], &bytes[first + 2..]].concat();
    for damaged in [longer, shorter, renumbered, unmarked] {
        assert!(decode(&damaged, "restarts.jpg").is_err());
    }
}
