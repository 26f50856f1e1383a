//! `vllm-bench completions` and `vllm-bench man`: written from the same clap types that read the command line.

use clap::{Command, CommandFactory};

use crate::cli::{Cli, CompletionsArgs};
use crate::error::Error;
use crate::exit;
use crate::ui::Ui;

/// Prints completions for a shell.
///
/// # Errors
/// None; the signature is that of every command.
pub fn run(args: &CompletionsArgs, ui: &Ui) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut public_command(), "vllm-bench", &mut script);
    ui.out_raw(&script);
    Ok(exit::OK)
}

/// Prints the manual page.
///
/// # Errors
/// When it cannot be written.
pub fn man(ui: &Ui) -> Result<u8, Error> {
    ui.out_raw(&manual(public_command())?);
    Ok(exit::OK)
}

/// The command line without what is ours alone: hidden subcommands do not appear in completions or the manual.
fn public_command() -> Command {
    let mut command = Cli::command();
    // Global flags reach the subcommands only in a built command.
    command.build();
    let public: Vec<Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned().collect();
    let arguments: Vec<clap::Arg> =
        command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")).cloned().collect();
    let mut shown = Command::new("vllm-bench").disable_help_subcommand(true).subcommand_required(true);
    shown = shown.args(arguments).subcommands(public);
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        shown = shown.long_about(about.clone());
    }
    if let Some(after) = command.get_after_long_help() {
        shown = shown.after_long_help(after.clone());
    }
    shown
}

/// One page: the program, then a section for every subcommand with its flags.
fn manual(mut command: Command) -> std::io::Result<Vec<u8>> {
    command.build();
    let subcommands: Vec<Command> = command.get_subcommands().cloned().collect();
    let page = clap_mangen::Man::new(command).manual("vllm-bench");
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    for subcommand in subcommands {
        let heading = format!(".SH \"VLLM\\-BENCH {}\"\n", subcommand.get_name().to_uppercase());
        let section = clap_mangen::Man::new(subcommand);
        let mut body = Vec::new();
        section.render_description_section(&mut body)?;
        section.render_synopsis_section(&mut body)?;
        section.render_options_section(&mut body)?;
        out.extend_from_slice(heading.as_bytes());
        out.extend_from_slice(demoted(&body).as_bytes());
    }
    page.render_extra_section(&mut out)?;
    page.render_version_section(&mut out)?;
    Ok(out)
}

/// The sections of a page as subsections.
fn demoted(page: &[u8]) -> String {
    String::from_utf8_lossy(page)
        .lines()
        .filter(|line| *line != ".SH DESCRIPTION")
        .map(|line| match line.strip_prefix(".SH ") {
            Some(title) => format!(".SS {title}\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::Shell;

    const HIDDEN: [&str; 2] = ["__guard", "sim-vllm"];

    #[test]
    fn completions_know_every_public_subcommand_and_no_hidden_one() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut public_command(), "vllm-bench", &mut script);
            let script = String::from_utf8(script).unwrap();
            let public = public_command();
            let commands: Vec<&str> = public.get_subcommands().map(clap::Command::get_name).collect();
            assert!(commands.len() >= 20, "{commands:?}");
            for word in commands.into_iter().chain(["after-current", "color"]) {
                assert!(script.contains(word), "{shell}: {word}");
            }
            for hidden in HIDDEN {
                assert!(!script.contains(hidden), "{shell}: {hidden}");
            }
        }
    }

    #[test]
    fn the_manual_has_a_section_with_flags_for_every_public_subcommand() {
        let page = String::from_utf8(manual(public_command()).unwrap()).unwrap();
        for word in [".SH \"VLLM\\-BENCH STOP\"", "after\\-current", ".SS SYNOPSIS", "Exit codes", "keep\\-last"] {
            assert!(page.contains(word), "{word}\n{page}");
        }
        for hidden in HIDDEN {
            assert!(!page.contains(hidden), "{hidden}");
        }
    }
}
