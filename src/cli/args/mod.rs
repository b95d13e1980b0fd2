//! The command line: what can be typed, and what its help says.
//!
//! Only grammar. What a command does is in the module of its name.

mod manage;
mod operators;
mod transfer;
mod usage;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::styling::Styles;
use clap::{Args, Parser, Subcommand};

use super::exit::Exit;
use super::output::Format;
use crate::config::{ConfigFile, Override};

pub(super) use manage::{
    AssertionCommand, AuditCommand, AuditListArgs, IssuerCommand, KeyCommand, LimitArgs,
    ShopCommand, TokenCommand,
};
pub(super) use operators::{OperatorCommand, OperatorTokenCommand, PasswordArgs, SessionsCommand};
pub(super) use transfer::{
    BackupCommand, ExportArgs, ImportArgs, PassphraseArgs, RestoreArgs, VerifyArgs,
};
pub(super) use usage::UsageArgs;
pub(super) use value::{Header, LimitSetting};

/// Where the configuration is looked for when nobody says.
const STANDARD_CONFIG: &str = "/etc/latchkey/latchkey.toml";

const ABOUT: &str = "A gateway that decides, for every HTTP request, whether this caller may do \
                     this";

const LONG_ABOUT: &str = "\
latchkey is a self-hosted gateway in one binary. It checks shop API keys, widget tokens and JWTs,
binds them to a shop and an origin, holds rate limits, and forwards what it allows to the services
behind it. Credentials live in an embedded database.

Commands that manage shops, keys and tokens talk to a running server through its unix socket; when
none runs, they open the database themselves.";

const EXAMPLES: &str = "\
Examples:
  latchkey demo                                     see everything, leave nothing behind
  latchkey serve --upstream http://127.0.0.1:9000   protect a service
  latchkey shop create acme --url https://acme.example
  latchkey key create acme --name production";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "latchkey", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(styles = Styles::plain(), max_term_width = 100, subcommand_required = true)]
#[command(arg_required_else_help = true, propagate_version = true)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", Exit::table()))]
pub(super) struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub(super) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// `man`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ManArgs {
    /// The page: a command, `latchkey.toml`, `metrics`, `proxies`, `refusals`, `security` or
    /// `upgrade`
    #[arg(value_name = "PAGE", default_value = "latchkey")]
    pub(super) page: String,
    /// Print it as text, not for `man`
    #[arg(long)]
    pub(super) text: bool,
    /// Write every page into this directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["page", "text"])]
    pub(super) dir: Option<PathBuf>,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(super) struct Global {
    /// The configuration file [default: /etc/latchkey/latchkey.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "LATCHKEY_CONFIG")]
    #[arg(help_heading = "Global options")]
    config: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    #[arg(help_heading = "Global options")]
    pub(super) output: Format,
    /// The database (`store.path`)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    store: Option<String>,
    /// The unix socket that commands talk to the server through (`admin.socket`)
    #[arg(long, global = true, value_name = "PATH", env = "LATCHKEY_SOCKET")]
    #[arg(help_heading = "Global options")]
    socket: Option<String>,
}

impl Global {
    /// The configuration file to read.
    pub(super) fn config_file(&self) -> ConfigFile {
        match &self.config {
            Some(path) => ConfigFile::Required(path.clone()),
            None => ConfigFile::Optional(PathBuf::from(STANDARD_CONFIG)),
        }
    }

    /// The values given as global flags.
    pub(super) fn overrides(&self) -> Vec<Override> {
        let flags = [
            ("--store", "store.path", self.store.as_ref()),
            ("--socket", "admin.socket", self.socket.as_ref()),
        ];
        flags.into_iter().filter_map(set_flag).collect()
    }
}

fn set_flag((flag, key, value): (&str, &str, Option<&String>)) -> Option<Override> {
    Some(Override { flag: flag.into(), key: key.into(), value: value?.clone() })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the gateway
    ///
    /// SIGHUP has it read its configuration again, SIGTERM finish what is under way and stop; both
    /// are told to a service manager (`NOTIFY_SOCKET`), and listening sockets that one hands over
    /// (`LISTEN_FDS`) are served. It ends with 0 when it was told to stop; with 2 or 3 starting it
    /// again is of no use before the command line or the configuration is changed.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Show every way in, allowed and refused, on a throw-away server
    ///
    /// Starts a gateway with a temporary database, a service that echoes what reaches it, two
    /// shops and an identity provider, all on loopback, and prints a curl line for an allowed and
    /// a refused call of every mechanism, each under the answer it gets. Stop it with Ctrl-C:
    /// nothing is left behind.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Manage shops, the tenants everything belongs to
    #[command(subcommand)]
    Shop(ShopCommand),
    /// Manage shop API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Manage widget tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Manage who may use the admin API
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Look after the keys of identity providers
    #[command(subcommand)]
    Issuer(IssuerCommand),
    /// Look after the keys that sign what upstreams are told
    #[command(subcommand)]
    Assertion(AssertionCommand),
    /// Look into the audit log: who changed what, and whether the log was tampered with
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Show how many requests of a shop, or of all shops, were allowed, refused and limited
    #[command(after_help = usage::EXAMPLES)]
    Usage(UsageArgs),
    /// Make and look after backups
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Restore a backup; the server must not run
    #[command(after_help = transfer::RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// Say whether a backup is whole and unaltered; exits with 0 or 7
    Verify(VerifyArgs),
    /// Import shops and keys from a file of JSON lines
    #[command(after_help = transfer::IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Export shops and keys as JSON lines
    #[command(after_help = transfer::EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Say what would be decided about a request, and why
    ///
    /// Takes the request through every stage without sending it anywhere: it is charged to no
    /// limit and leaves no trace. With `-` a request in JSON is read from standard input, as
    /// `POST /api/v1/explain` takes it.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at everything a gateway needs, and say what is wrong and what to do
    ///
    /// The configuration, files and who may read them, the database and its master key,
    /// certificates, addresses, upstreams, identity providers, disk space, open files, the clock:
    /// a line each, `ok`, `warning` or `error`. Changes nothing. Asks a running server what only
    /// it can know; without one, the database is read to its end.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Ask a running server whether it is ready; exits with 0 or 6
    ///
    /// For container health checks and scripts. Asks /readyz on the admin listener.
    Healthcheck(HealthcheckArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print a manual page, or write them all
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  latchkey serve
  latchkey serve --listen 127.0.0.1:8080 --upstream http://127.0.0.1:9000
  LATCHKEY_LOG__FORMAT=json latchkey serve --config ./latchkey.toml

Signals: SIGTERM and SIGINT finish what is in flight, then stop; SIGHUP reads the configuration
again and applies it if it is valid. `latchkey config print` shows every key.";

const DEMO_EXAMPLES: &str = "\
Examples:
  latchkey demo           print the calls, and serve until Ctrl-C
  latchkey demo --check   make every call, exit with 7 if an answer is not the printed one";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  latchkey explain --path /api/plugin/shops/demo/products -H 'X-Shop-API-Key: sk_...'
  latchkey explain --method POST --path /api/search/items --client 203.0.113.9
  echo '{\"method\":\"GET\",\"path\":\"/api/search/items\",\"headers\":{}}' | latchkey explain -

A secret on the command line is seen by every user of the machine while the command runs, and
stays in the shell's history; `latchkey explain -` keeps it out of both.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  sudo -u latchkey latchkey doctor
  latchkey doctor --strict --output json

Exits with 0 if there is no error, with 7 if there is one; with --strict, warnings count as
errors.";

const MAN_EXAMPLES: &str = "\
Examples:
  latchkey man refusals --text              why was I refused?
  latchkey man latchkey.toml | man -l -
  latchkey man --dir /usr/local/share/man";

const REFERENCE_EXAMPLES: &str = "\
Examples:
  latchkey config reference server.tls
  latchkey config reference --output json";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  latchkey completions bash > /etc/bash_completion.d/latchkey
  latchkey completions zsh > ~/.zfunc/_latchkey
  latchkey completions fish > ~/.config/fish/completions/latchkey.fish";

/// `serve`. Every flag overrides the key of the configuration it names.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ServeArgs {
    /// Where callers connect (`server.listen`)
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where the admin API, metrics and health checks listen (`admin.listen`)
    #[arg(long, value_name = "ADDR:PORT")]
    admin_listen: Option<String>,
    /// The file that holds the master key (`store.master_key_file`)
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<String>,
    /// The service behind the gateway (`upstreams.default.url`)
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Worker threads (`server.workers`)
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// What is logged: off, error, warn, info, debug, trace (`log.level`)
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How it is logged: text or json (`log.format`)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl ServeArgs {
    /// The values given as flags.
    pub(super) fn overrides(&self) -> Vec<Override> {
        let flags = [
            ("--listen", "server.listen", &self.listen),
            ("--admin-listen", "admin.listen", &self.admin_listen),
            ("--master-key-file", "store.master_key_file", &self.master_key_file),
            ("--upstream", "upstreams.default.url", &self.upstream),
            ("--workers", "server.workers", &self.workers),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        flags.into_iter().filter_map(|(f, k, v)| set_flag((f, k, v.as_ref()))).collect()
    }
}

/// `demo`.
#[derive(Debug, Clone, Args)]
pub(super) struct DemoArgs {
    /// Make every call and compare the answers, instead of waiting for Ctrl-C
    #[arg(long)]
    pub(super) check: bool,
    /// Where callers connect [default: 127.0.0.1:8080, or any free port if that is taken]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Option<SocketAddr>,
}

/// `explain`.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("request").required(true).args(["path", "stdin"]))]
pub(super) struct ExplainArgs {
    /// The method
    #[arg(long, default_value = "GET", conflicts_with = "stdin")]
    pub(super) method: String,
    /// The path, with its query if any
    #[arg(long, value_name = "PATH")]
    pub(super) path: Option<String>,
    /// A header; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", conflicts_with = "stdin")]
    pub(super) headers: Vec<Header>,
    /// The client's address [default: 127.0.0.1]
    #[arg(long, value_name = "IP", conflicts_with = "stdin")]
    pub(super) client: Option<std::net::IpAddr>,
    /// `-`: read the request as JSON from standard input
    #[arg(value_name = "-", value_parser = clap::builder::PossibleValuesParser::new(["-"]))]
    pub(super) stdin: Option<String>,
}

/// `config`.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say what is wrong with the configuration, all of it at once; exits with 0 or 3
    Check,
    /// Print the configuration in force, and where each value was said
    Print,
    /// Print what there is to configure: every key, its type, bounds and default
    #[command(after_help = REFERENCE_EXAMPLES)]
    Reference {
        /// Only the keys that begin so, such as `server.tls`
        #[arg(value_name = "KEY", default_value = "", hide_default_value = true)]
        key: String,
    },
}

/// `doctor`.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct DoctorArgs {
    /// Exit with 7 if there are warnings, too
    #[arg(long)]
    pub(super) strict: bool,
}

/// `healthcheck`.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct HealthcheckArgs {
    /// The admin listener to ask [default: admin.listen of the configuration]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) admin: Option<SocketAddr>,
    /// How long to wait for the answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=300))]
    pub(super) timeout: u64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::error::ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|e| e.kind())
    }

    #[test]
    fn flags_become_overrides() {
        let cli = parse("latchkey serve --listen 1.2.3.4:5 --store /x --workers 3").unwrap();
        let Command::Serve(serve) = &cli.command else { panic!("not serve") };
        let said = |o: Vec<Override>| -> Vec<String> {
            o.into_iter().map(|o| format!("{} {}={}", o.flag, o.key, o.value)).collect()
        };
        assert_eq!(
            said(serve.overrides()),
            ["--listen server.listen=1.2.3.4:5", "--workers server.workers=3"]
        );
        assert_eq!(said(cli.global.overrides()), ["--store store.path=/x"]);
    }

    #[test]
    fn the_standard_file_may_be_missing_one_that_was_named_may_not() {
        let cli = parse("latchkey config check --config a.toml").unwrap();
        assert_eq!(cli.global.config_file(), ConfigFile::Required("a.toml".into()));
        let cli = Cli { global: Global { config: None, ..cli.global }, ..cli };
        assert!(matches!(cli.global.config_file(), ConfigFile::Optional(_)));
    }

    #[test]
    fn lines_that_are_understood_and_lines_that_are_not() {
        for good in [
            "latchkey demo --check",
            "latchkey shop create acme --url https://acme.example --output json",
            "latchkey --output json shop list",
            "latchkey key rotate acme key_00000000000000ab --grace 1h",
            "latchkey token issue acme --scope search --scope compare --lifetime 2h",
            "latchkey operator token create --name ci --role viewer",
            "latchkey shop limits acme --set widget-search=10/1m",
            "latchkey shop standing acme",
            "latchkey explain --path / -H X-Widget-Token:abc",
            "latchkey explain -",
            "latchkey healthcheck --timeout 1",
            "latchkey doctor --strict --output json",
            "latchkey completions fish",
            "latchkey config reference server.tls",
            "latchkey man --dir /tmp/x",
            "latchkey man refusals --text",
        ] {
            parse(good).unwrap_or_else(|e| panic!("{good}: {e:?}"));
        }
        for bad in [
            "latchkey",
            "latchkey shop",
            "latchkey shop create me --url https://x.example",
            "latchkey shop create acme",
            "latchkey key rotate acme key_1",
            "latchkey key rotate acme key_00000000000000ab --grace soon",
            "latchkey shop limits acme --set widget-search=0/1m",
            "latchkey shop limits acme --set widget-search",
            "latchkey explain",
            "latchkey explain x",
            "latchkey explain - --client 1.2.3.4",
            "latchkey explain --path / -H nonsense",
            "latchkey healthcheck --timeout 0",
            "latchkey man refusals --dir /tmp/x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_command_says_what_it_is_for() {
        fn visit(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            let unexplained = command.get_arguments().filter(|a| a.get_help().is_none());
            let ids: Vec<_> = unexplained.map(clap::Arg::get_id).collect();
            assert!(ids.is_empty(), "{}: {ids:?}", command.get_name());
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }
}
