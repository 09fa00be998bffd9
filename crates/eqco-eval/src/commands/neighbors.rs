//! `eqco-eval neighbors`: the training images that are nearest to given images.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use eqco_data::decode::read_file;
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{Dataset, Image, Split, encode};
use eqco_eval::{
    EncoderOutput, EvalError, GridGeometry, ImageRows, Neighbour, Tile, WholeFile, image_rows,
    nearest_neighbours, picture_grid,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};

use super::output::print;
use super::source::{DataArgs, Source, image_bar};

/// Colour (RGB) around the queries.
const QUERY_FRAME: [u8; 3] = [0, 114, 178];

/// Images in the picture are at least about so many pixels wide.
const TILE: usize = 96;

/// Flags of `neighbors`.
#[derive(Args, Debug)]
pub(super) struct NeighborsArgs {
    /// Checkpoint, or the folder of a run, which stands for its last checkpoint
    #[arg(value_name = "CHECKPOINT|RUN_FOLDER")]
    checkpoint: PathBuf,
    /// JPEG or PNG files
    #[arg(value_name = "QUERY_IMAGE", required = true)]
    queries: Vec<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Training images to show for each query
    #[arg(long = "k", value_name = "COUNT", default_value_t = 8)]
    count: usize,
    /// Picture to write, with a row for each query: the query in a frame, then its neighbours
    #[arg(long, value_name = "FILE.png", default_value = "neighbours.png")]
    out: PathBuf,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// A query with what was found for it.
struct Found<'a> {
    path: &'a Path,
    neighbours: Vec<Neighbour>,
}

pub(super) fn run(arguments: &NeighborsArgs) -> Result<()> {
    check_name(&arguments.out)?;
    let source = arguments.data.open(&arguments.checkpoint)?;
    let recipe = Recipe::new(RecipeConfig::new(RecipeName::Eval, source.view.image_size))?;
    let queries = arguments.queries.iter();
    let queries = queries.map(|path| Ok(seen(&recipe, &read_file(path)?)?));
    let queries = queries.collect::<Result<Vec<Image>>>()?;
    let bank = source.part(Split::Train)?;
    check_count(arguments.count, bank.len())?;
    let picture = WholeFile::create(&arguments.out)?;
    let encoder = source.encoder()?;
    let output = EncoderOutput::Representation;
    let bar = image_bar(bank.len(), "training images through the encoder".to_owned())?;
    let rows = image_rows(&encoder, output, &bank, "train", source.view, &mut |done| {
        bar.set_position(done as u64)
    });
    bar.finish_and_clear();
    let rows = rows?;
    let mut units = Vec::new();
    for query in &queries {
        units.extend(output.of_pixels(&encoder, query.pixels(), source.view.image_size)?);
    }
    let nearest = nearest_neighbours(&rows.values, &units, rows.dim, arguments.count);
    let paths = arguments.queries.iter().map(PathBuf::as_path);
    let found: Vec<Found<'_>> = paths
        .zip(nearest)
        .map(|(path, neighbours)| Found { path, neighbours })
        .collect();
    let grid = draw(&recipe, queries, &found, &bank, &rows)?;
    let png = encode::png(&grid)?;
    picture.write(|out| std::io::Write::write_all(out, &png))?;
    if arguments.json {
        return print_as_json(source, &arguments.out, &found, &rows);
    }
    print(&table(&found, &rows, &arguments.out))
}

fn check_name(picture: &Path) -> Result<(), EvalError> {
    if (picture.extension()).is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        return Ok(());
    }
    Err(EvalError::OutputPlace {
        path: picture.to_owned(),
        expected: "a name that ends in .png".to_owned(),
        found: "another one".to_owned(),
        next: "give --out a name like neighbours.png",
    })
}

fn check_count(count: usize, train_count: usize) -> Result<(), EvalError> {
    if (1..=train_count).contains(&count) {
        return Ok(());
    }
    Err(EvalError::InvalidSetting {
        setting: "k",
        expected: format!("1 to {train_count}, the number of training images"),
        got: count.to_string(),
    })
}

/// An image as the encoder sees it: resized and cut to a square.
fn seen(recipe: &Recipe, image: &Image) -> Result<Image, eqco_data::DataError> {
    let size = recipe.image_size();
    let mut pixels = vec![0; size * size * 3];
    // The recipe draws nothing.
    recipe.apply(image, &mut ChaCha8Rng::seed_from_u64(0), &mut pixels);
    Image::new(size, size, pixels)
}

fn draw(
    recipe: &Recipe,
    queries: Vec<Image>,
    found: &[Found<'_>],
    bank: &Arc<dyn Dataset>,
    rows: &ImageRows,
) -> Result<Image> {
    let mut tiles = Vec::new();
    for (query, found) in queries.into_iter().zip(found) {
        let frame = Some(QUERY_FRAME);
        let mut row = vec![Tile {
            image: query,
            frame,
        }];
        for neighbour in &found.neighbours {
            let image = bank.image(rows.indices[neighbour.index] as usize)?;
            let image = seen(recipe, &image)?;
            row.push(Tile { image, frame: None });
        }
        tiles.push(row);
    }
    // Whole multiples, so that all pixels of a small image have one size.
    let size = recipe.image_size();
    let side = size * TILE.div_ceil(size);
    let geometry = GridGeometry {
        side,
        frame: 3,
        column_gap: 4,
        row_gap: 4,
    };
    Ok(picture_grid(&tiles, geometry)?)
}

fn table(found: &[Found<'_>], rows: &ImageRows, picture: &Path) -> String {
    let classes = rows.class_names.iter().map(|name| name.chars().count());
    let width = classes.max().unwrap_or(0).max("class".len());
    let mut text = String::new();
    for Found { path, neighbours } in found {
        let _ = writeln!(text, "{}", path.display());
        let _ = writeln!(text, "rank  similarity  {:<width$}  image", "class");
        for (rank, neighbour) in neighbours.iter().enumerate() {
            let (class, image) = described(rows, neighbour);
            let _ = writeln!(
                text,
                "{:>4}  {:>10.4}  {:<width$}  {image}",
                rank + 1,
                neighbour.similarity,
                class.unwrap_or("-"),
            );
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "{}: {} training images; picture in {}",
        rows.origin.data,
        rows.count(),
        picture.display()
    );
    text
}

fn described<'a>(rows: &'a ImageRows, neighbour: &Neighbour) -> (Option<&'a str>, &'a str) {
    (rows.class(neighbour.index), &rows.images[neighbour.index])
}

fn print_as_json(
    source: Source,
    picture: &Path,
    found: &[Found<'_>],
    rows: &ImageRows,
) -> Result<()> {
    let of_query = |found: &Found<'_>| -> Value {
        let neighbours = found.neighbours.iter().enumerate();
        let neighbours = neighbours.map(|(rank, neighbour)| {
            let (class, image) = described(rows, neighbour);
            json!({
                "rank": rank + 1,
                "similarity": neighbour.similarity,
                "class": class,
                "image": image,
            })
        });
        json!({"query": found.path, "neighbours": neighbours.collect::<Vec<_>>()})
    };
    let image_size = source.view.image_size;
    let provenance = source.provenance(rows.encoder_sha256.clone());
    let json = json!({
        "image_size": image_size,
        "checkpoint": provenance.checkpoint,
        "computed_on": provenance.computed_on,
        "train": {"origin": rows.origin, "count": rows.count()},
        "picture": picture,
        "queries": found.iter().map(of_query).collect::<Vec<_>>(),
    });
    print(&serde_json::to_string_pretty(&json)?)
}
