//! The arguments of `regatta image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::args::can_be_name;

/// What to do with golden images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import a golden image into the daemon's catalog
    ///
    /// A FILE is a disk (raw or qcow2) or a kernel (PVH ELF or bzImage), by its contents. A DIR holds what
    /// belongs together: disk.qcow2, disk.raw or disk.img; vmlinux, vmlinuz or bzImage; initramfs* or initrd*;
    /// cmdline; or a firmware, *.fd. An image.yaml in it may say otherwise (disk, kernel, initramfs, cmdline,
    /// firmware, description). The files are checked, hashed and copied; the originals are not needed afterwards.
    #[command(after_long_help = "\
Examples:
  regatta image import ./debian-13
  regatta image import web.qcow2 --name web --firmware /usr/share/cloud-hypervisor/CLOUDHV.fd
  regatta image import disk.raw --name web --kernel vmlinux --initramfs initrd --cmdline 'root=/dev/vda1'
  regatta image import ./debian-13 --replace")]
    Import(ImportArgs),
    /// List the golden images
    List,
    /// Show everything about a golden image
    Show {
        /// Image name, or the digest of one of its files (first 6 digits suffice)
        #[arg(value_name = "NAME|DIGEST")]
        image: String,
    },
    /// Remove stored files that no image, set or instance uses
    Gc {
        /// Show what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove an image name; its files stay until `gc`
    Remove {
        /// The image
        #[arg(value_parser = image_name)]
        name: String,
    },
}

/// Arguments of `image import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The disk, the kernel or the directory, on the daemon's host
    #[arg(value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub source: PathBuf,
    /// Name [default: derived from the file or directory name]
    #[arg(long, value_parser = image_name)]
    pub name: Option<String>,
    /// Kernel to start
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "firmware")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk of the kernel
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "firmware")]
    pub initramfs: Option<PathBuf>,
    /// Command line of the kernel
    #[arg(long, value_name = "TEXT", conflicts_with = "firmware")]
    pub cmdline: Option<String>,
    /// Firmware to start
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub firmware: Option<PathBuf>,
    /// One-line description
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Replace an image of this name; running instances keep the old one
    #[arg(long)]
    pub replace: bool,
}

/// An image's name, by the rules of sets; anything else can only be a slip.
fn image_name(text: &str) -> Result<String, String> {
    if can_be_name(text) {
        Ok(text.to_owned())
    } else {
        Err("an image's name is of lower-case letters, digits and -, starts with a letter and has at most 32 bytes"
            .to_owned())
    }
}
