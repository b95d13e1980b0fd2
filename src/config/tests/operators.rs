//! The keys of the admin plane: sign-in, sessions, identity provider; audit, usage, backups.

use std::collections::BTreeSet;

use super::front_door::ends;
use super::*;
use crate::id::ShopId;

/// As little as an identity provider for operators needs.
pub(super) const OIDC: &str = "[admin]\npublic_url = 'https://latchkey.example'\n[admin.oidc]\n\
                               issuer = 'https://idp.example'\nclient_id = 'latchkey'\n\
                               roles = [{ group = 'owners', role = 'owner' }]\n";

fn secret(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn bounds_have_two_ends() {
    for (key, low, high) in [
        ("admin.sessions.per_operator_max", "1", "1000"),
        ("admin.passwords.iterations", "1", "64"),
        ("admin.passwords.concurrent_max", "1", "64"),
        ("admin.passwords.waiting_max", "1", "1024"),
        ("admin.passwords.length_min", "8", "128"),
        ("backup.keep", "1", "10000"),
    ] {
        ends(key, low, high, "0", "10000001");
    }
    ends("usage.rows_max", "10000", "1000000000", "0", "1000000001");
    ends("admin.passwords.memory", "'64KiB'", "'1GiB'", "0", "'2GiB'");
    for (key, low, high) in [
        ("admin.sessions.idle_timeout", "'1s'", "'12h'"),
        ("admin.sessions.lifetime", "'1h'", "'365d'"),
        ("usage.flush_interval", "'1s'", "'1h'"),
        ("backup.interval", "'1m'", "'365d'"),
    ] {
        ends(key, low, high, "'0s'", "'366d'");
    }
    for (key, low, high) in [
        ("audit.retention", "'1h'", "'3650d'"),
        ("usage.minutes_kept", "'1h'", "'60d'"),
        ("usage.hours_kept", "'1d'", "'800d'"),
        ("usage.days_kept", "'60d'", "'3650d'"),
    ] {
        ends(key, low, high, "'0s'", "'3651d'");
    }
}

/// What tests and other modules take for the defaults is what an empty file amounts to.
#[test]
fn the_defaults_by_name_are_those_of_an_empty_file() {
    let config = load(&Sources::default()).unwrap();
    let socket = PathBuf::from("/var/lib/latchkey/admin.sock");
    assert_eq!(config.admin, AdminConfig::new("127.0.0.1:8081".parse().unwrap(), socket));
    assert_eq!(config.audit, AuditConfig::default());
    assert_eq!(config.usage, UsageConfig::default());
    assert_eq!(config.backup, BackupConfig::new("/var/lib/latchkey/backups".into()));
    let elsewhere = good("[store]\npath = '/data/latchkey.redb'");
    assert_eq!(elsewhere.backup.directory, PathBuf::from("/data/backups"));
}

#[test]
fn mistakes_in_the_admin_plane() {
    check_rows(&[
        ("[admin]\ndashboard = 'no'", "admin.dashboard: \"no\" is neither true nor false"),
        (
            "[admin]\npublic_url = 'latchkey.example'",
            "admin.public_url: \"latchkey.example\": an origin starts with http:// or https://; \
             write e.g. \"https://latchkey.example\"",
        ),
        (
            "[admin]\npublic_url = 'https://latchkey.example/admin'",
            "admin.public_url: \"https://latchkey.example/admin\": an origin is only scheme, host \
             and port: no user, path, query or fragment; write e.g. \"https://latchkey.example\"",
        ),
        (
            "[admin]\npublic_url = 'https://joe:hunter2@latchkey.example'",
            "admin.public_url: a URL with user information is not accepted; write e.g. \
             \"https://latchkey.example\"",
        ),
        (
            "[admin]\ntrusted_proxies = ['0.0.0.0/0']",
            "admin.trusted_proxies[0]: \"0.0.0.0/0\" is everybody: every caller could say who \
             they are; name the proxies' own networks",
        ),
        (
            "[admin.tls]\ncertificates = []\nclient_auth = 'required'",
            "admin.tls.client_auth: unknown key; known here: certificates, min_version, \
             handshake_timeout, watch_interval",
        ),
        (
            "[admin.tls]\nmin_version = '1.3'",
            "admin.tls.certificates: is missing; write [{ chain_file = \"…\", key_file = \"…\" }], \
             or [] for a plain listener",
        ),
        (
            "[admin.sessions]\nidle_timeout = '13h'",
            "admin.sessions.idle_timeout: \"13h\" is longer than admin.sessions.lifetime, \"12h\"",
        ),
        (
            "[usage]\nminutes_kept = '61d'",
            "usage.minutes_kept: \"61d\" is longer than usage.hours_kept, \"60d\"",
        ),
        (
            "[usage]\nhours_kept = '801d'",
            "usage.hours_kept: \"801d\" is longer than usage.days_kept, \"800d\"",
        ),
        (
            "[backup]\ninclude_master_key = true",
            "backup.include_master_key: needs passphrase_file: whoever had such a backup in the \
             clear would hold every key",
        ),
        (
            "[backup]\npassphrase_file = '/nowhere/at/all'",
            "backup.passphrase_file: \"/nowhere/at/all\" cannot be read: No such file or directory \
             (os error 2)",
        ),
    ]);
}

#[test]
fn mistakes_about_the_identity_provider() {
    let tables = "[admin]\npublic_url = 'https://latchkey.example'\n[admin.oidc]\n";
    let base = "client_id = 'latchkey'\nroles = [{ group = 'g', role = 'viewer' }]\n";
    let issuer = "issuer = 'https://idp.example'\n";
    let role = |role: &str| format!("{tables}{issuer}client_id = 'c'\nroles = [{role}]");
    for (text, expected) in [
        (
            format!("{tables}{base}"),
            "admin.oidc.issuer: is missing; write e.g. issuer = \"https://idp.example\"",
        ),
        (
            format!("{tables}{base}issuer = 'http://idp.example'"),
            "admin.oidc.issuer: \"http://idp.example\" is plain http: whoever sits between could \
             hand out keys; use https (http is for this machine only)",
        ),
        (
            format!("{tables}{base}issuer = 'https://idp.example/?a'"),
            "admin.oidc.issuer: \"https://idp.example/?a\" has a query; an issuer has none",
        ),
        (
            format!("[admin.oidc]\n{base}{issuer}"),
            "admin.public_url: is missing; admin.oidc needs it: the provider sends browsers back \
             there",
        ),
        (
            format!("{tables}{base}{issuer}scopes = ['profile']"),
            "admin.oidc.scopes: lack \"openid\", without which the provider names nobody",
        ),
        (
            format!("{tables}{base}{issuer}colour = 1"),
            "admin.oidc.colour: unknown key; known here: issuer, client_id, client_secret_file, \
             scopes, name_claim, groups_claim, ca_file, roles",
        ),
        (
            role(""),
            "admin.oidc.roles: is missing; write e.g. [{ group = \"latchkey-owners\", role = \
             \"owner\" }]; without any, nobody could sign in",
        ),
        (
            role("{ group = 'g', role = 'root' }"),
            "admin.oidc.roles[0].role: \"root\" is none of \"owner\", \"operator\", \"viewer\", \
             \"member\"",
        ),
        (
            role("{ group = 'g', role = 'member' }"),
            "admin.oidc.roles[0].shops: is missing; write the ids of the group's shops, e.g. \
             [\"demo\"]",
        ),
        (
            role("{ group = 'g', role = 'owner', shops = ['demo'] }"),
            "admin.oidc.roles[0].shops: are for \"member\"; the other roles see every shop",
        ),
        (
            role("{ group = '', role = 'owner' }"),
            "admin.oidc.roles[0].group: \"\" is not 1 to 256 bytes of text",
        ),
    ] {
        check_rows(&[(&text, expected)]);
    }
}

#[test]
fn groups_have_roles() {
    let text = OIDC.replace(
        "{ group = 'owners', role = 'owner' }",
        "{ group = 'a', role = 'operator' }, { group = 'b', role = 'member', shops = ['x', 'y'] }",
    );
    let shops: BTreeSet<ShopId> = ["y", "x"].map(|id| ShopId::parse(id).unwrap()).into();
    let expected = [
        GroupRole { group: "a".into(), role: RoleGrant::Operator },
        GroupRole { group: "b".into(), role: RoleGrant::Member(shops) },
    ];
    let config = good(&text);
    assert_eq!(config.admin.oidc.as_ref().unwrap().roles, expected);
    assert_eq!(config.admin.public_url.as_ref().unwrap().to_string(), "https://latchkey.example");
    // What is printed reads back.
    assert_eq!(good(&config.print()).admin, config.admin);
}

#[test]
fn secret_files_are_closed_and_long_enough() {
    let passphrase = secret("correct horse battery staple\n");
    let path = passphrase.path().display().to_string();
    let text =
        format!("[backup]\ninterval = '1d'\npassphrase_file = '{path}'\ninclude_master_key = true");
    let config = good(&text);
    assert!(!config.print().contains("correct horse") && !format!("{config:?}").contains("horse"));
    let read = read_secret_file(&config.backup.passphrase_file.unwrap()).unwrap();
    assert_eq!(read.expose(), "correct horse battery staple");

    for (text, mode, expected) in [
        ("short", 0o600, "holds 5 bytes; write 12 at least"),
        (" \n", 0o600, "is empty"),
        (&*"x".repeat(4097), 0o600, "is larger than 4096 bytes"),
        ("long enough for all", 0o604, "is open to every user of this machine; chmod o-rwx it"),
    ] {
        let file = secret(text);
        let path = file.path().display().to_string();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let shown = value::quote(&path);
        check_rows(&[(
            &format!("[backup]\npassphrase_file = '{path}'"),
            &format!("backup.passphrase_file: {shown} {expected}"),
        )]);
        // An identity provider's secret is as long as the provider made it.
        let oidc = format!("{OIDC}client_secret_file = '{path}'");
        assert_eq!(load(&sources(&oidc)).is_ok(), text == "short", "{text}");
    }
    check_rows(&[(
        "[backup]\npassphrase_file = '/'",
        "backup.passphrase_file: \"/\" is not a file",
    )]);
}
