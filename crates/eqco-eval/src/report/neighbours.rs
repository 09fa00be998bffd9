//! Test images with the training images that the representation puts nearest to them.

use eqco_data::encode;

use super::chart::{Drawing, Text, text_width};
use super::figure::Figure;
use super::html::data_address;
use crate::{
    EvalError, EvalImages, FeaturePair, Features, GridGeometry, Tile, nearest_neighbours,
    picture_grid,
};

/// Most rows of the grid.
const MOST_QUERIES: usize = 12;
/// Fewest rows, where there are so many test images.
const FEWEST_QUERIES: usize = 10;
const NEIGHBOURS: usize = 8;

/// Frames that stay apart for colour-blind eyes too: bluish green and vermillion.
const SAME_CLASS: [u8; 3] = [0x00, 0x9E, 0x73];
const OTHER_CLASS: [u8; 3] = [0xD5, 0x5E, 0x00];

const GEOMETRY: GridGeometry = GridGeometry {
    side: 64,
    frame: 4,
    column_gap: 14,
    row_gap: 22,
};
const HEAD: f64 = 58.0;
/// Pixels between the queries and their neighbours, in addition to the gap of columns.
const LEFT: f64 = 16.0;

/// Test rows to look at: the first of each class, of classes at equal distances where there are more than 12, a second and
/// third of each where there are fewer than 10. Nothing is picked by how well it looks.
fn queries(test: &Features) -> Vec<usize> {
    let mut by_class = vec![Vec::new(); test.class_count()];
    for (row, &label) in test.labels().iter().enumerate() {
        by_class[label as usize].push(row);
    }
    by_class.retain(|rows| !rows.is_empty());
    let classes = by_class.len();
    if classes >= MOST_QUERIES {
        return (0..MOST_QUERIES)
            .map(|place| by_class[place * classes / MOST_QUERIES][0])
            .collect();
    }
    let mut rows = Vec::new();
    for round in 0.. {
        let found: Vec<usize> = by_class
            .iter()
            .filter_map(|rows| rows.get(round).copied())
            .collect();
        if found.is_empty() || rows.len() >= FEWEST_QUERIES {
            break;
        }
        rows.extend(found);
    }
    rows.truncate(MOST_QUERIES);
    rows.sort_by_key(|&row| test.labels()[row]);
    rows
}

/// The grid as a figure: one query a row, its 8 nearest training images beside it, class names below.
///
/// # Errors
/// Those of reading the images.
pub(crate) fn neighbour_figure(
    images: &EvalImages,
    features: &FeaturePair,
) -> Result<Figure, EvalError> {
    let (train, test) = (features.train(), features.test());
    let rows = queries(test);
    let values: Vec<f32> = rows
        .iter()
        .flat_map(|&row| test.row(row))
        .copied()
        .collect();
    let labels: Vec<u32> = rows.iter().map(|&row| test.labels()[row]).collect();
    let nearest = nearest_neighbours(train.values(), &values, train.dim(), NEIGHBOURS);

    let mut pictures: Vec<Vec<Tile>> = Vec::new();
    let mut captions: Vec<Vec<String>> = Vec::new();
    let name = |label: u32| images.class_names()[label as usize].as_str();
    for ((&row, &label), near) in rows.iter().zip(&labels).zip(&nearest) {
        let mut line = vec![Tile {
            image: images.test().image(test.images()[row])?,
            frame: None,
        }];
        let mut texts = vec![name(label).to_owned()];
        for neighbour in near {
            let other = train.labels()[neighbour.index];
            let frame = if other == label {
                SAME_CLASS
            } else {
                OTHER_CLASS
            };
            line.push(Tile {
                image: images.train().image(train.images()[neighbour.index])?,
                frame: Some(frame),
            });
            texts.push(format!("{} {:.2}", name(other), neighbour.similarity));
        }
        pictures.push(line);
        captions.push(texts);
    }
    let png = encode::png(&picture_grid(&pictures, GEOMETRY)?)?;
    let right = (nearest.iter().zip(&labels)).flat_map(|(near, label)| {
        near.iter()
            .map(move |neighbour| train.labels()[neighbour.index] == *label)
    });
    let right = right.filter(|is_right| *is_right).count();
    let all: usize = nearest.iter().map(Vec::len).sum();
    Ok(Figure {
        stem: "neighbours".to_owned(),
        caption: format!(
            "The first test image of each class shown, not a selection. Below each training image its class and its cosine \
             similarity. {right} of these {all} neighbours share the class of their query."
        ),
        drawing: drawing(&png, &captions),
        png: Some(png),
    })
}

/// The grid with its captions.
fn drawing(png: &[u8], captions: &[Vec<String>]) -> Drawing {
    let columns = captions.iter().map(Vec::len).max().unwrap_or(0);
    let (width, height) = GEOMETRY.size(captions.len(), columns);
    let (width, height) = (width as f64, height as f64);
    let title = "Test images and their nearest training images";
    let mut drawing = Drawing::new(width + 2.0 * LEFT, HEAD + height + 6.0, title);
    let bold = |size| Text {
        bold: true,
        ..Text::new(size, "start")
    };
    drawing.text([LEFT, 22.0], bold(14.0), title);
    let at = |row, column| {
        let (x, y) = GEOMETRY.corner(row, column);
        [LEFT + x as f64, HEAD + y as f64]
    };
    drawing.text([LEFT, 47.0], bold(12.0), "test");
    let [second, _] = at(0, 1);
    drawing.text(
        [second, 47.0],
        Text::new(12.0, "start"),
        "nearest training images, framed:",
    );
    let mut x = second + text_width("nearest training images, framed:", 12.0) + 10.0;
    for (colour, text) in [(SAME_CLASS, "same class"), (OTHER_CLASS, "another class")] {
        let [red, green, blue] = colour;
        drawing.rect(
            [x, 37.0, 12.0, 12.0],
            &format!("#{red:02x}{green:02x}{blue:02x}"),
        );
        drawing.text([x + 17.0, 47.0], Text::new(12.0, "start"), text);
        x += 30.0 + text_width(text, 12.0);
    }
    drawing.image([LEFT, HEAD, width, height], &data_address(png));
    let side = GEOMETRY.side as f64;
    let room = side + 2.0 * GEOMETRY.frame as f64 + GEOMETRY.column_gap as f64 - 3.0;
    for (row, texts) in captions.iter().enumerate() {
        for (column, text) in texts.iter().enumerate() {
            let [x, y] = at(row, column);
            let how = Text {
                bold: column == 0,
                ..Text::new(10.5, "middle")
            };
            drawing.text(
                [x + side / 2.0, y + side + 16.0],
                how,
                &fitted(text, room, column > 0),
            );
        }
    }
    drawing
}

/// Text cut to a width; a number at its end stays.
fn fitted(text: &str, room: f64, ends_with_number: bool) -> String {
    let size = 10.5;
    let (mut name, end) = match text.rsplit_once(' ').filter(|_| ends_with_number) {
        Some((name, number)) => (name.to_owned(), format!(" {number}")),
        None => (text.to_owned(), String::new()),
    };
    if text_width(text, size) <= room {
        return text.to_owned();
    }
    while !name.is_empty() && text_width(&format!("{name}…{end}"), size) > room {
        name.pop();
    }
    format!("{name}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use crate::images::tests::images;

    fn labelled(labels: Vec<u32>, classes: usize) -> Features {
        let values = (0..labels.len()).map(|row| row as f32 + 1.0).collect();
        Features::new(
            Origin::new("toy", "test", "by hand"),
            values,
            1,
            labels,
            classes,
        )
        .unwrap()
    }

    #[test]
    fn queries_are_the_first_of_each_class() {
        assert_eq!(queries(&labelled(vec![1, 1, 0, 2, 0], 4)), [2, 4, 0, 1, 3]);
        let many = labelled((0..100).map(|row| row % 24).collect(), 24);
        assert_eq!(
            queries(&many),
            (0..12).map(|place| place * 2).collect::<Vec<_>>()
        );
        let ten = labelled((0..100).map(|row| row / 10).collect(), 10);
        assert_eq!(
            queries(&ten),
            (0..10).map(|place| place * 10).collect::<Vec<_>>()
        );
        let three = queries(&labelled((0..100).map(|row| row % 3).collect(), 3));
        assert_eq!(three.len(), 12);
    }

    #[test]
    fn an_image_is_its_own_nearest_neighbour() {
        // Both parts of these are the same gradients, labelled in turn with three classes.
        let images = images(9, 4, 8);
        let pixels = crate::raw_pixels(&images).unwrap();
        let figure = neighbour_figure(&images, &pixels).unwrap();
        let svg = figure.drawing.inline();
        assert_eq!(svg.matches(" 1.00</text>").count(), 4, "{svg}");
        assert!(
            figure.caption.contains("of these 32 neighbours"),
            "{}",
            figure.caption
        );
        assert_eq!(&figure.png.unwrap()[1..4], b"PNG");
    }

    #[test]
    fn long_names_are_cut_before_their_number() {
        let text = fitted("a very long name of a class 0.95", 80.0, true);
        assert!(
            text.ends_with("… 0.95") && text_width(&text, 10.5) <= 80.0,
            "{text}"
        );
        assert_eq!(fitted("cat 0.95", 80.0, true), "cat 0.95");
    }
}
