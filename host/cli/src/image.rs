//! `regatta image …`.

use std::path::{self, Path};

use regatta_api::Client;
use regatta_api::image_types::{
    GcOutcome, GcRequest, ImageDiskInfo, ImageFileInfo, ImageInfo, ImportImageRequest, ImportProgress,
};

use super::Io;
use super::args::Output;
use super::exit::{Outcome, failed, invalid};
use super::image_args::{ImageCommand, ImportArgs};
use super::render::{Columns, json, or_dash, pair, plain_line, right, text};
use super::time::{age, size, utc};
use super::wait::Line;

pub(super) async fn run(client: &Client, command: &ImageCommand, output: Output, io: &mut Io<'_>) -> Outcome {
    match command {
        ImageCommand::Import(args) => import(client, args, output, io).await,
        ImageCommand::List => list(client, output, io).await,
        ImageCommand::Show { image } => {
            let image = client.image(image).await?;
            if output == Output::Json { json(&image, io) } else { show(&image, io) }
        }
        ImageCommand::Gc { dry_run } => {
            let outcome = client.collect_images(&GcRequest { dry_run: *dry_run }).await?;
            if output == Output::Json { json(&outcome, io) } else { print_removed(&outcome, io) }
        }
        ImageCommand::Remove { name } => remove(client, name, output, io).await,
    }
}

async fn import(client: &Client, args: &ImportArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let option = |path: &Option<path::PathBuf>| path.as_deref().map(absolute).transpose();
    let request = ImportImageRequest {
        path: absolute(&args.source)?,
        name: args.name.clone(),
        kernel: option(&args.kernel)?,
        initramfs: option(&args.initramfs)?,
        firmware: option(&args.firmware)?,
        cmdline: args.cmdline.clone(),
        description: args.description.clone(),
        replace: args.replace,
    };
    let mut line = Line::default();
    let mut shown = Ok(());
    let imported = client.import_image(&request, |progress| {
        // Whoever reads a log wants the outcome, not every step to it.
        if io.err_terminal && shown.is_ok() {
            shown = line.show(&format!("importing {}: {}", request.path, told(&progress)), io);
        }
    });
    let imported = imported.await;
    shown?;
    line.clear(io)?;
    let image = imported?;
    if output == Output::Json {
        return json(&image, io);
    }
    writeln!(io.out, "{} imported, {}", image.name, size(image.size_bytes))?;
    files(&image, io)?;
    for set in &image.used_by {
        writeln!(io.out, "  the set {set} gets it with its next apply")?;
    }
    Ok(())
}

/// `disk, 1.5 GiB of 4 GiB (37%)`.
fn told(progress: &ImportProgress) -> String {
    let ImportProgress { file, done_bytes, total_bytes } = progress;
    if *total_bytes == 0 {
        return "looking at it, or waiting for another import".to_owned();
    }
    let percent = u128::from(*done_bytes) * 100 / u128::from(*total_bytes);
    format!("{file}, {} of {} ({percent}%)", size(*done_bytes), size(*total_bytes))
}

/// The daemon knows nothing of our working directory.
pub(super) fn absolute(path: &Path) -> Outcome<String> {
    let absolute = path::absolute(path).map_err(|error| failed(path.display(), error))?;
    let text = absolute.into_os_string().into_string();
    text.map_err(|path| invalid(format!("{} is not UTF-8", path.display())))
}

async fn list(client: &Client, output: Output, io: &mut Io<'_>) -> Outcome {
    let images = client.images().await?;
    if output == Output::Json {
        return json(&images, io);
    }
    if images.is_empty() {
        writeln!(io.err, "there are no golden images; `regatta image import FILE|DIR` makes one")?;
        return Ok(());
    }
    let now_ms = (io.clock_ms)();
    let described = images.iter().any(|image| !image.description.is_empty());
    let mut headings = vec!["NAME", "DISK", "STARTS", "SIZE", "AGE", "USED BY"];
    headings.extend(described.then_some("DESCRIPTION"));
    let mut table = Columns::new(&headings, io).folding(&["DESCRIPTION", "USED BY", "STARTS"]);
    for image in &images {
        let disk =
            image.disk.as_ref().map(|disk| format!("{} {}", size(disk.virtual_size_bytes), disk.format));
        let used_by = (!image.used_by.is_empty()).then(|| image.used_by.join(", "));
        let mut row = vec![
            text(&image.name),
            text(or_dash(disk)),
            text(starts(image)),
            right(size(image.size_bytes)),
            right(age(image.imported_ms, now_ms)),
            text(or_dash(used_by)),
        ];
        row.extend(described.then(|| text(&image.description)));
        table.row(row);
    }
    table.print(0, io)
}

/// What a guest starts, in few words.
fn starts(image: &ImageInfo) -> &'static str {
    match (&image.kernel, &image.initramfs) {
        (Some(_), Some(_)) => "kernel, initramfs",
        (Some(_), None) => "kernel",
        (None, _) => "firmware",
    }
}

fn show(image: &ImageInfo, io: &mut Io<'_>) -> Outcome {
    let now_ms = (io.clock_ms)();
    pair("Name", &image.name, io)?;
    if !image.description.is_empty() {
        pair("Description", &image.description, io)?;
    }
    pair("Imported", &format!("{} ({} ago)", utc(image.imported_ms), age(image.imported_ms, now_ms)), io)?;
    pair("From", &image.source, io)?;
    if !image.cmdline.is_empty() {
        pair("Command line", &image.cmdline, io)?;
    }
    let used_by = if image.used_by.is_empty() { "no set".to_owned() } else { image.used_by.join(", ") };
    pair("Used by", &used_by, io)?;
    pair("Size", &size(image.size_bytes), io)?;
    writeln!(io.out)?;
    files(image, io)
}

/// What an image is made of, a line each.
fn files(image: &ImageInfo, io: &mut Io<'_>) -> Outcome {
    let mut table = Columns::new(&["FILE", "SIZE", "DIGEST", "CONTENTS"], io);
    if let Some(ImageDiskInfo { digest, size_bytes, format, virtual_size_bytes }) = &image.disk {
        let contents = format!("{format}, a disk of {}", size(*virtual_size_bytes));
        table.row(vec![text("disk"), right(size(*size_bytes)), text(digest), text(contents)]);
    }
    let others = [("kernel", &image.kernel), ("initramfs", &image.initramfs), ("firmware", &image.firmware)];
    for (what, file) in others {
        if let Some(ImageFileInfo { digest, size_bytes }) = file {
            table.row(vec![text(what), right(size(*size_bytes)), text(digest), text("")]);
        }
    }
    table.print(2, io)
}

async fn remove(client: &Client, name: &str, output: Output, io: &mut Io<'_>) -> Outcome {
    let image = client.remove_image(name).await?;
    if output == Output::Json {
        return json(&image, io);
    }
    writeln!(io.out, "{} removed; `regatta image gc` frees what nothing uses anymore", image.name)?;
    for set in &image.used_by {
        writeln!(io.out, "  set {set} keeps using its files; its next apply needs another image")?;
    }
    Ok(())
}

fn print_removed(outcome: &GcOutcome, io: &mut Io<'_>) -> Outcome {
    let GcOutcome { dry_run, removed, freed_bytes } = outcome;
    if removed.is_empty() {
        writeln!(io.out, "nothing to remove: every stored file is in use")?;
        return Ok(());
    }
    for file in removed {
        writeln!(io.out, "{}  {}", plain_line(&file.digest), size(file.disk_bytes))?;
    }
    let files = if removed.len() == 1 { "1 file".to_owned() } else { format!("{} files", removed.len()) };
    let what = if *dry_run { "would be removed" } else { "removed" };
    writeln!(io.out, "{files} {what}, {} on disk", size(*freed_bytes))?;
    Ok(())
}
