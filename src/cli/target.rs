//! Which server a command asks: the one of a data directory on this machine, or one at an address.

use std::path::PathBuf;

use super::exit::Failure;
use crate::client::{Client, Target};
use crate::config::{self, LoadRequest, Loaded};
use crate::secret::Secret;

/// The environment variable that holds the token for `--server`.
const TOKEN_VARIABLE: &str = "PLIMSOLL_TOKEN";

/// What a server is started with.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// The configuration file; else `PLIMSOLL_CONFIG`, else the first there is of `config/plimsoll.yaml`,
    /// `plimsoll.yaml`, those in `~/.config/plimsoll` and `/etc/plimsoll`, else none.
    #[arg(long, short, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The data directory; wins over the configuration.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
}

impl SourceArgs {
    /// What is to be loaded, with the environment and the working directory of this process.
    pub(crate) fn request(&self) -> Result<LoadRequest<'static>, Failure> {
        let cwd = std::env::current_dir();
        Ok(LoadRequest {
            file: self.config.clone(),
            data_dir: self.data_dir.clone(),
            environment: &|name| std::env::var_os(name),
            cwd: cwd.map_err(|e| Failure::Input("the working directory cannot be told".to_owned(), e))?,
        })
    }

    /// Loads the configuration, with every problem at once.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        config::load(&self.request()?).map_err(Failure::Config)
    }
}

/// Which server is asked. Without any of these: the one of this user on this machine.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which server")]
pub(crate) struct TargetArgs {
    /// The data directory of the server, where its control socket is.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration file that names the data directory.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's address, such as `https://plimsoll.example:1876`.
    #[arg(long, value_name = "URL", visible_alias = "url", env = "PLIMSOLL_SERVER")]
    #[arg(conflicts_with_all = ["data_dir", "config"])]
    server: Option<String>,
    /// A file that holds the token for --server; else the variable `PLIMSOLL_TOKEN` is taken.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM certificates to trust for --server besides the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl TargetArgs {
    /// A client of that server.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.target()?)?)
    }

    fn target(&self) -> Result<Target, Failure> {
        match &self.server {
            None => Ok(Target::DataDir(self.data_dir()?)),
            Some(base) => {
                Ok(Target::Url { base: base.clone(), token: self.token()?, ca_file: self.ca_file.clone() })
            }
        }
    }

    /// The data directory, where no address is given.
    pub(crate) fn data_dir(&self) -> Result<PathBuf, Failure> {
        let source = SourceArgs { config: self.config.clone(), data_dir: self.data_dir.clone() };
        config::data_dir(&source.request()?).map_err(Failure::Config)
    }

    /// The configuration of the server on this machine.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        SourceArgs { config: self.config.clone(), data_dir: self.data_dir.clone() }.load()
    }

    fn token(&self) -> Result<Option<Secret>, Failure> {
        let Some(path) = &self.token_file else {
            let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
            return Ok(token.map(|token| Secret::new(token, format!("${{{TOKEN_VARIABLE}}}"))));
        };
        let read = std::fs::read_to_string(path);
        let text =
            read.map_err(|e| Failure::Input(format!("cannot read the token in {}", path.display()), e))?;
        Ok(Some(Secret::new(text.trim().to_owned(), format!("file:{}", path.display()))))
    }
}
