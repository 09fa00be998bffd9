//! Flags of the commands that look at images, or pack them, and train nothing.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use eqco_data::recipe::RecipeName;
use eqco_data::{Format, Split};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use super::ConfigArgs;

/// Flags of `pack`.
#[derive(Args, Debug)]
pub struct PackArgs {
    /// Images: a manifest's name ("embedded", "imagenette", ...) or a path
    #[arg(long, value_name = "NAME|PATH")]
    pub data: String,
    /// How the images at that path lie on disk: folder, idx, cifar10, cifar100, imagenet-tar, shards, parquet or packed [default: what is found]
    #[arg(long, value_name = "NAME")]
    pub format: Option<Format>,
    /// Parts to pack, into one file
    #[arg(long, value_enum, default_value_t = PartsArg::Both)]
    pub split: PartsArg,
    /// File to write, which --data takes as a path; an older one is replaced when the new one is whole
    #[arg(long, value_name = "FILE.eqco")]
    pub out: PathBuf,
    /// Make images smaller whose longer side exceeds this, and encode them as JPEG; all others are kept as they are
    #[arg(long, value_name = "PIXELS")]
    pub max_side: Option<usize>,
    /// JPEG quality of the images that are made smaller, 1 to 100 [default: 90]
    #[arg(long, value_name = "QUALITY", requires = "max_side")]
    pub quality: Option<u8>,
    /// Threads; 0 for one a core
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub threads: u16,
}

/// Parts of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PartsArg {
    /// Training images alone
    Train,
    /// Test images alone
    Test,
    /// Training and test images
    Both,
}

/// Flags of `inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Part of the data set
    #[arg(long, value_enum, default_value_t = SplitArg::Train)]
    pub split: SplitArg,
    /// Print a table of all classes with their images
    #[arg(long)]
    pub classes: bool,
    /// Images whose headers are read, evenly spread over the data set
    #[arg(long, value_name = "IMAGES", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: u32,
    /// Draw the first images of the first epoch, each beside both of its views in that epoch
    #[arg(long, value_name = "FILE.png")]
    pub grid: Option<PathBuf>,
    /// Most images in the grid
    #[arg(long, value_name = "IMAGES", default_value_t = 8, requires = "grid", value_parser = clap::value_parser!(u16).range(1..))]
    pub grid_images: u16,
    /// Draw the views of this recipe as it stands, instead of the configuration's
    #[arg(long, value_name = "NAME", requires = "grid", value_parser = recipe_name)]
    pub recipe: Option<RecipeName>,
    /// Decode every image and list those that cannot be; fails if they are more than data.loader.max_bad_share allows
    #[arg(long)]
    pub scan: bool,
    /// Write all images that cannot be decoded to this file, one a line with the reason behind a tab
    #[arg(long, value_name = "FILE", requires = "scan")]
    pub bad_list: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Where images and views are described.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitArg {
    /// Training images
    Train,
    /// Test images
    Test,
}

impl From<SplitArg> for Split {
    fn from(argument: SplitArg) -> Self {
        match argument {
            SplitArg::Train => Self::Train,
            SplitArg::Test => Self::Test,
        }
    }
}

/// A recipe by the name that it has in configurations; the error lists all names.
fn recipe_name(text: &str) -> Result<RecipeName, String> {
    let text: StrDeserializer<'_, Error> = text.into_deserializer();
    RecipeName::deserialize(text).map_err(|error| error.to_string())
}
