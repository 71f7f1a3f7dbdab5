//! What a setting is, and the macro that declares a section of them: each setting once, with its key, type,
//! default, bounds, flag, environment variables and description. Everything else (reading, the command
//! line, the reference table, what `oma config` shows) follows from that declaration.

use crate::config::reader::Reader;

/// A declared setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its name in its section.
    pub(crate) name: &'static str,
    /// How its value is written.
    pub(crate) notation: &'static str,
    /// What stands for its value in the help of its flag.
    pub(crate) placeholder: &'static str,
    /// Its default, as it would be written in the environment; `None`: not set.
    pub(crate) default: Option<&'static str>,
    /// The least and the greatest legal value.
    pub(crate) between: Option<(&'static str, &'static str)>,
    /// Its flag, without the dashes.
    pub(crate) flag: Option<&'static str>,
    /// Its environment variables, the one that counts most first. One that ends in `_MS` holds a whole number
    /// of milliseconds.
    pub(crate) env: &'static [&'static str],
    /// What it is for.
    pub(crate) doc: &'static str,
}

/// A table of the configuration file.
pub(crate) trait Section: Sized {
    /// Its key.
    const KEY: &'static str;
    /// What it is about.
    const DOC: &'static str;
    /// Its settings, in the order of the reference table.
    const SETTINGS: &'static [Setting];

    /// Reads it. `None` when something is wrong; the reader has noted what.
    fn read(reader: &mut Reader<'_>, key: &str) -> Option<Self>;
}

/// Declares a section.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        $section:ident in $key:literal {
            $(
                $(#[doc = $doc:literal])+
                $name:ident: $kind:ty {
                    $(default $default:literal;)?
                    $(between $least:literal, $greatest:literal;)?
                    $(flag $flag:literal;)?
                    $(env $($env:literal),+;)?
                }
            )+
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Debug, Clone)]
        pub(crate) struct $section {
            $($(#[doc = $doc])+ pub(crate) $name: $kind,)+
        }

        impl $crate::config::setting::Section for $section {
            const KEY: &'static str = $key;
            const DOC: &'static str = concat!($($section_doc, "\n"),+);
            const SETTINGS: &'static [$crate::config::setting::Setting] = &[
                $($crate::config::setting::Setting {
                    name: stringify!($name),
                    notation: <$kind as $crate::config::value::Value>::NOTATION,
                    placeholder: <$kind as $crate::config::value::Value>::PLACEHOLDER,
                    default: $crate::config::setting::optional!($($default)?),
                    between: $crate::config::setting::optional!($(($least, $greatest))?),
                    flag: $crate::config::setting::optional!($($flag)?),
                    env: &[$($($env),+)?],
                    doc: concat!($($doc, "\n"),+),
                },)+
            ];

            fn read(reader: &mut $crate::config::reader::Reader<'_>, key: &str) -> Option<Self> {
                let mut settings = Self::SETTINGS.iter();
                // Every setting is read before the first missing one ends this, so that all mistakes of a
                // configuration are reported together.
                $(let $name = settings.next().and_then(|setting| reader.read::<$kind>(key, setting));)+
                Some(Self { $($name: $name?,)+ })
            }
        }
    };
}
pub(crate) use section;

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}
pub(crate) use optional;
