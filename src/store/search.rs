//! Shops by words in them, found by a walk over the records as they lie in the file.
//!
//! Decoding a record takes ten times as long as looking at its bytes, and most records hold no
//! word that is asked for: so bytes are looked at first, and only what may match is decoded and
//! looked at as text. Bytes are never the last word: they hold the names of members too. What a
//! match is, is said here and nowhere else: each word is part of the id, the name or the URL, in
//! any case.

use std::ops::Bound;

use super::error::StoreError;
use super::read::ReadTx;
use super::records::ShopRecord;
use super::schema;
use crate::id::ShopId;

/// The most words of a search; further ones are not looked at.
const WORDS_MAX: usize = 8;

/// What one call may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchBudget {
    /// Records whose bytes are looked at.
    pub looked_at_max: usize,
    /// Records that are decoded.
    pub decoded_max: usize,
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(Vec<Word>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    /// Folded.
    text: String,
    /// What of it stands in the bytes of every record of ASCII alone that holds it, in one case or
    /// the other; `None`: such a record does not hold it.
    bytes: Option<Vec<u8>>,
}

impl Words {
    /// The words of `text`, between white space; `None` if it has none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<Word> = text.split_whitespace().take(WORDS_MAX).map(Word::new).collect();
        (!words.is_empty()).then_some(Self(words))
    }

    /// Whether `shop` is meant.
    #[must_use]
    pub fn match_shop(&self, shop: &ShopRecord) -> bool {
        let fields = [shop.id.as_str(), &shop.name, &shop.url].map(fold);
        self.0.iter().all(|word| fields.iter().any(|field| field.contains(&word.text)))
    }

    /// Whether the record `bytes` may hold a shop that is meant; `false` only if it does not.
    fn may_match(&self, bytes: &[u8]) -> bool {
        // Letters beyond ASCII fold to ASCII ones (the Kelvin sign to k): bytes do not tell.
        !bytes.is_ascii()
            || self.0.iter().all(|word| {
                word.bytes.as_ref().is_some_and(|wanted| contains_ignoring_case(bytes, wanted))
            })
    }
}

impl Word {
    fn new(text: &str) -> Self {
        let text = fold(text);
        // What JSON escapes stands otherwise in the bytes: the longest part without is looked for.
        let bytes = text.is_ascii().then(|| {
            let parts = text.split(['"', '\\', '\u{7f}']).flat_map(|p| p.split(char::is_control));
            parts.max_by_key(|part| part.len()).unwrap_or_default().as_bytes().to_vec()
        });
        Self { text, bytes }
    }
}

/// `text` without case: each character to upper case and back, which joins what lower case alone
/// keeps apart (ß and ss, the two small sigmas).
fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Whether `wanted`, which is in lower case, stands in `bytes`, in any case of ASCII.
fn contains_ignoring_case(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else {
        return true;
    };
    memchr::memchr2_iter(*first, first.to_ascii_uppercase(), bytes).any(|at| {
        let found = bytes.get(at..at.saturating_add(wanted.len()));
        found.is_some_and(|found| found.eq_ignore_ascii_case(wanted))
    })
}

/// What a search found before its budget was spent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundShops {
    /// In the order of their ids.
    pub shops: Vec<ShopRecord>,
    /// Where to go on: after this one. `None`: there is no more.
    pub next: Option<ShopId>,
}

impl ReadTx {
    /// Up to `limit` shops that `words` mean, in the order of their ids, from the first after
    /// `after`; fewer, with more to come, when the budget is spent.
    pub fn search_shops(
        &self,
        words: &Words,
        after: Option<&ShopId>,
        limit: usize,
        budget: SearchBudget,
    ) -> Result<FoundShops, StoreError> {
        let mut found = FoundShops::default();
        let (mut looked_at, mut decoded) = (0, 0);
        let after = after.map(schema::shop_id);
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last: Option<Vec<u8>> = None;
        let walked = self.visit_while(schema::SHOPS, from, |id, bytes| {
            // Known to be more, only when one more is met.
            let spent = looked_at == budget.looked_at_max || decoded == budget.decoded_max;
            if spent || found.shops.len() == limit {
                return Ok(false);
            }
            looked_at += 1;
            last = Some(id.to_vec());
            if words.may_match(bytes) {
                decoded += 1;
                let shop: ShopRecord = self.context.decode(schema::SHOPS, bytes)?;
                if words.match_shop(&shop) {
                    found.shops.push(shop);
                }
            }
            Ok(true)
        })?;
        if !walked {
            found.next = last.map(|id| self.shop_id_of(&id)).transpose()?;
        }
        Ok(found)
    }

    fn shop_id_of(&self, key: &[u8]) -> Result<ShopId, StoreError> {
        let text = std::str::from_utf8(key).ok();
        let id = text.and_then(|text| ShopId::parse(text).ok());
        id.ok_or_else(|| self.context.bad_record(schema::SHOPS, &"its key is no shop id"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::records::Record as _;
    use crate::store::testing::{self, master_key};

    const AMPLE: SearchBudget = SearchBudget { looked_at_max: 1000, decoded_max: 1000 };

    fn shop(id: &str, name: &str, url: &str) -> ShopRecord {
        let (name, url) = (name.to_owned(), url.to_owned());
        ShopRecord { name, url, ..testing::shop(id) }
    }

    #[test]
    fn words_in_any_case_of_any_script() {
        let shop = shop("demo-1", "Käse & Söhne \"GmbH\" ΟΔΟΣ Straße", "https://Shop.example:8443");
        for (text, meant) in [
            ("demo", true),
            ("DEMO-1", true),
            ("käse", true),
            ("KÄSE", true),
            ("kase", false),
            ("οδοσ", true),
            ("οδος", true),
            ("STRASSE", true),
            ("shop.EXAMPLE:84", true),
            ("\"gmbh\"", true),
            ("\u{212a}äse", true),
            ("demo käse 8443", true),
            ("demo nothing", false),
            // Members' names are not what is in them.
            ("enabled", false),
            ("created_at", false),
        ] {
            let words = Words::parse(text).unwrap();
            assert_eq!(words.match_shop(&shop), meant, "{text}");
        }
        assert_eq!(Words::parse(" \t "), None);
        assert_eq!(Words::parse(&"a ".repeat(99)).unwrap().0.len(), WORDS_MAX);
    }

    proptest! {
        /// Bytes never hide a match, whatever is in the record and whatever is looked for.
        #[test]
        fn no_match_is_missed(
            name in "[ -~]{0,12}|[\"\\\\\u{1}kKsSßſ\u{212a}iİıä]{0,8}|\\PC{0,8}",
            url in "https://[a-zA-Z.]{1,12}",
            text in "[ -~]{1,6}|[\"\\\\kKsSßſ\u{212a}iİı]{1,3}|\\PC{1,3}",
            cut in any::<prop::sample::Index>(),
        ) {
            let shop = shop("a", &name, &url);
            // What stands in it, too, so that there are matches to be missed.
            let from = cut.index(name.chars().count().max(1));
            let within: String = name.chars().skip(from).collect();
            for text in [text, within.to_uppercase(), within] {
                if let Some(words) = Words::parse(&text)
                    && words.match_shop(&shop)
                {
                    prop_assert!(words.may_match(&shop.encode().unwrap()), "{} {}", name, text);
                }
            }
        }
    }

    #[test]
    fn pages_and_budgets_walk_all_of_it_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = testing::open_file(&directory.path().join("a.redb"), master_key(1)).unwrap();
        store
            .write(|tx| -> Result<(), StoreError> {
                for i in 0..60 {
                    let kind = if i % 3 == 0 { "red" } else { "blue" };
                    tx.put_shop(&shop(&format!("s{i:02}"), kind, "https://a.example"))?;
                }
                Ok(())
            })
            .unwrap();
        let words = Words::parse("RED").unwrap();
        for (limit, budget) in [
            (1, AMPLE),
            (7, AMPLE),
            (20, AMPLE),
            (100, AMPLE),
            (100, SearchBudget { looked_at_max: 1, ..AMPLE }),
            (100, SearchBudget { looked_at_max: 7, ..AMPLE }),
            (100, SearchBudget { decoded_max: 3, ..AMPLE }),
        ] {
            let (mut all, mut after, mut calls) = (Vec::new(), None, 0);
            loop {
                let found = store
                    .read(|tx| tx.search_shops(&words, after.as_ref(), limit, budget))
                    .unwrap();
                assert!(found.shops.len() <= limit);
                all.extend(found.shops.into_iter().map(|shop| shop.id.to_string()));
                calls += 1;
                assert!(calls <= 61, "it ends");
                match found.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            let expected: Vec<String> = (0..60).step_by(3).map(|i| format!("s{i:02}")).collect();
            assert_eq!(all, expected, "{limit} {budget:?}");
        }
    }
}
