//! A store of any number of shops with a key each, for benches: filled by the library, without a
//! gateway, ten thousand shops to a transaction.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use latchkey::admin::node::Node;
use latchkey::clock::{SystemClock, Timestamp};
use latchkey::config::{self, Config, ConfigFile, Override, Sources};
use latchkey::id::{KeyId, ShopId};
use latchkey::metrics::Metrics;
use latchkey::secret::SystemEntropy;
use latchkey::store::{KeyRecord, ShopRecord, StoreError, WriteTx};

/// The database in a folder.
pub(crate) const DATABASE: &str = "latchkey.redb";

/// The secret of the key `number`.
pub(crate) fn secret(number: u32) -> String {
    format!("sk_{number:032x}")
}

/// Opens the store in `folder` as `latchkey serve` does.
pub(crate) fn open(folder: &Path) -> Arc<Node> {
    let clock = Arc::new(SystemClock::new());
    let entropy = Arc::new(SystemEntropy::new());
    Node::open(configuration(folder), clock, entropy, Arc::new(Metrics::new("bench").unwrap()))
        .unwrap()
}

fn configuration(folder: &Path) -> Config {
    let path = folder.join(DATABASE).to_str().unwrap().to_owned();
    let sources = Sources {
        file: ConfigFile::Absent,
        environment: BTreeMap::new(),
        overrides: vec![Override { flag: "--store".into(), key: "store.path".into(), value: path }],
    };
    config::load(&sources).unwrap()
}

/// Fills the store in `folder` with `shop-0` and so on, whose keys have the same numbers.
pub(crate) fn fill(folder: &Path, shops: u32) {
    let node = open(folder);
    let now = node.now().unix;
    let numbers: Vec<u32> = (0..shops).collect();
    for chunk in numbers.chunks(10_000) {
        let written: Result<(), StoreError> =
            node.store.write(|tx| chunk.iter().try_for_each(|number| put(tx, *number, &node, now)));
        written.unwrap();
    }
}

fn put(tx: &mut WriteTx, number: u32, node: &Node, now: Timestamp) -> Result<(), StoreError> {
    let shop = ShopId::parse(&format!("shop-{number}")).unwrap();
    tx.put_shop(&ShopRecord {
        id: shop,
        name: format!("The shop with the number {number}"),
        url: format!("https://shop-{number}.example"),
        widget_origins: Vec::new(),
        enabled: true,
        tokens_valid_from: Timestamp::default(),
        limits: Vec::new(),
        created_at: now,
        updated_at: now,
        revision: 1,
    })?;
    let text = secret(number);
    tx.put_key(&KeyRecord {
        id: KeyId(number.into()),
        shop,
        name: "server".into(),
        digest: node.pepper().digest(text.as_bytes()),
        start: text.chars().take(7).collect(),
        created_at: now,
        expires_at: None,
        grace_until: None,
        replaced_by: None,
        networks: Vec::new(),
        limits: Vec::new(),
        last_used_at: None,
        revision: 1,
    })
}
