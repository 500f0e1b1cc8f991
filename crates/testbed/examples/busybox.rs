//! Writes an archive of a busybox image, for trying things by hand: `busybox NAME FILE`, then `keelson image load FILE`.

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, name, file] = args.as_slice() else { return Err(std::io::Error::other("usage: busybox NAME FILE")) };
    keelson_testbed::image::busybox(name)?.write_archive(std::path::Path::new(file))?;
    Ok(())
}
