//! `keelson convert`: manifests from one encoding to another, with no server.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use keelson_api::codec::Encoding;
use keelson_api::codec::convert::{Converted, convert};

use super::Failure;

#[derive(Args)]
pub(super) struct Convert {
    /// The file to read, in any encoding; - is the standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: PathBuf,
    /// The encoding to write, to the standard output
    #[arg(short = 'o', long = "output", value_enum, default_value = "yaml")]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Convert {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let output = match self.output {
            Output::Json => Encoding::Json,
            Output::Yaml => Encoding::Yaml,
            Output::Protobuf => Encoding::Protobuf,
            Output::Cbor => Encoding::Cbor,
        };
        let mut stdout = std::io::stdout().lock();
        if matches!(output, Encoding::Protobuf | Encoding::Cbor) && stdout.is_terminal() {
            return Err("the output is binary: send it to a file or another program".into());
        }
        let name = self.file.display();
        let input = read(&self.file).map_err(|e| format!("{name}: {e}"))?;
        let Converted { bytes, warnings } = convert(&input, output).map_err(|e| format!("{name}: {e}"))?;
        for warning in warnings {
            eprintln!("Warning: {name}: {warning}");
        }
        stdout.write_all(&bytes)?;
        Ok(stdout.flush()?)
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return std::fs::read(file);
    }
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    Ok(input)
}
