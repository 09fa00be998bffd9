//! Views made on a GPU: decoded images in, normalised views out.
//!
//! The host says what each view is ([`View`]), with every random choice made. The kernels (`.cu` files beside this one)
//! compute with the integers and the roundings of the transforms on the CPU, so that a view has the same bytes wherever it is
//! made, and the same normalised values.
//!
//! Views go through scratch memory in groups, so that it does not grow with the batch.

mod source;
mod table;
mod view;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};
use eqco_core::cuda::{Launch, address, address_mut};

pub use self::source::SourceImages;
use self::table::{Group, Table};
pub use self::view::{Adjustment, Crop, View};
use crate::buffer::BufferPool;
use crate::cuda::{Cuda, by_type};
use crate::normalization::Normalization;
use crate::precision::Precision;

/// The largest side of a view in pixels: the sum of its luminance has 32 bits.
pub const MAX_IMAGE_SIZE: usize = 4096;

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks that share a view, of which each thread takes several pixels where there are more.
const MOST_BLOCKS: usize = 256;

/// Makes views `[N, image_size, image_size, 3]` of `precision`, one of each of `images` `[N]`, normalised.
///
/// # Errors
/// When the images are on another device, there is another number of views than of images, a crop does not lie inside its image, a number is out of its range
/// ([`View`]), or the device cannot allocate.
pub(crate) fn augment(
    cuda: &Cuda,
    images: &SourceImages,
    views: &[View],
    image_size: usize,
    normalization: &Normalization,
    precision: Precision,
    pool: &Arc<BufferPool>,
) -> Result<Tensor> {
    let device = images.bytes.device();
    if !cuda.queue().serves(device) {
        bail!(
            "expected images on the GPU that makes the views, found them on {:?}",
            device.location()
        );
    }
    check(images, views, image_size)?;
    normalization.check()?;
    let table = Table::new(views, &images.places, image_size)?;
    let target = Tensor::zeros(
        (views.len(), image_size, image_size, 3),
        precision.dtype(),
        device,
    )?;
    let scratch = pool.take(DType::F32, table.scratch_words())?;
    let pass = Pass {
        cuda,
        source: address(&images.bytes)?,
        words: upload(&table, device)?,
        scratch: address_mut(scratch.flat())?,
        image_size,
        target: &target,
        normalization,
    };
    table.groups.iter().try_for_each(|group| pass.run(group))?;
    Ok(target)
}

fn check(images: &SourceImages, views: &[View], image_size: usize) -> Result<()> {
    if !(1..=MAX_IMAGE_SIZE).contains(&image_size) {
        bail!("expected views of 1 to {MAX_IMAGE_SIZE} pixels, found {image_size}");
    }
    if views.is_empty() || views.len() != images.len() {
        bail!(
            "expected one view of each of {} images, found {} views",
            images.len(),
            views.len()
        );
    }
    let mut rows = views.iter().zip(&images.places).enumerate();
    rows.try_for_each(|(number, (view, place))| view.check(number, place, image_size))
}

fn upload(table: &Table, device: &Device) -> Result<Tensor> {
    Tensor::from_slice(&table.words, table.words.len(), device)
}

/// What all launches for one batch share.
struct Pass<'a> {
    cuda: &'a Cuda,
    source: u64,
    words: Tensor,
    scratch: u64,
    image_size: usize,
    target: &'a Tensor,
    normalization: &'a Normalization,
}

impl Pass<'_> {
    /// Makes the views of a group.
    fn run(&self, group: &Group) -> Result<()> {
        let area = self.image_size * self.image_size;
        let between = group.most_between;
        self.send(&self.launch("augment_axes", &[], group, 2 * self.image_size)?)?;
        let source = &[self.source];
        self.send(&self.launch("augment_resample_rows", source, group, between)?)?;
        self.send(&self.launch("augment_resample_columns", &[], group, area)?)?;
        self.send(&self.finishing(["augment_adjust_f32", "augment_adjust_bf16"], group)?)?;
        if group.is_blurred {
            self.send(&self.launch("augment_blur_rows", &[], group, area)?)?;
            let columns = ["augment_blur_columns_f32", "augment_blur_columns_bf16"];
            self.send(&self.finishing(columns, group)?)?;
        }
        Ok(())
    }

    /// A launch over `elements` of each view of a group; `first` are the arguments before those that all kernels have.
    fn launch(
        &self,
        kernel: &'static str,
        first: &[u64],
        group: &Group,
        elements: usize,
    ) -> Result<Launch> {
        let blocks = elements.div_ceil(THREADS).min(MOST_BLOCKS);
        let launch = Launch::new(kernel)
            .grid(blocks, group.views.len(), 1)
            .block(THREADS, 1);
        let launch = first.iter().copied().fold(launch, Launch::arg);
        Ok(launch
            .arg(address(&self.words)?)
            .arg(group.views.start)
            .arg(self.scratch)
            .arg(self.image_size))
    }

    /// A launch over all pixels of a kernel that ends views.
    fn finishing(&self, kernels: [&'static str; 2], group: &Group) -> Result<Launch> {
        let kernel = by_type(self.target.dtype(), kernels);
        let launch = self
            .launch(kernel, &[], group, self.image_size * self.image_size)?
            .arg(address_mut(self.target)?);
        Ok(self.normalization.constants().fold(launch, Launch::arg))
    }

    fn send(&self, launch: &Launch) -> Result<()> {
        // SAFETY: the arguments are those of the kernels, see `run`, and on the kernels' device, see `augment`. Crops lie inside their images and images inside the
        // source, which `check` and `SourceImages` see to; the table has a row for every view of a group; and the places in
        // its rows lie inside the scratch memory, which has room for the largest group.
        unsafe { self.cuda.launch(launch) }
    }
}

#[cfg(test)]
mod tests;
