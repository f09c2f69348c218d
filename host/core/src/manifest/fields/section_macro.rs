//! Sections whose fields are said once: type, row of the table, reader and writer.

/// What [`section!`] makes of the kind of a field: its type, how it is read, how it is written. A field that is
/// handed in has its own.
#[rustfmt::skip]
macro_rules! kind {
    (type boolean) => { bool };
    (type duration) => { u64 };
    (type integer) => { u32 };
    (type integer_u64) => { u64 };
    (type size) => { u64 };
    (type Text) => { String };
    (type $kind:ident $type:ty) => { $type };
    (read boolean $item:expr) => { $item.and_then(Item::boolean) };
    (read duration $item:expr) => { $item.and_then(Item::duration_ms) };
    (read integer $item:expr) => { $item.and_then(Item::integer) };
    (read integer_u64 $item:expr) => { $item.and_then(Item::integer) };
    (read size $item:expr) => { $item.and_then(Item::size_bytes) };
    (read Text $item:expr) => { $item.and_then(Item::text) };
    (read $kind:ident $item:expr, $given:ident: $type:ty) => { $given };
    (write boolean $value:expr) => { export::boolean($value) };
    (write duration $value:expr) => { export::duration($value) };
    (write integer $value:expr) => { export::number($value) };
    (write integer_u64 $value:expr) => { export::number($value) };
    (write size $value:expr) => { export::size($value) };
    (write Text $value:expr) => { export::text(&$value) };
    (write $kind:ident $value:expr, $write:path) => { $write(&$value) };
}

/// Whether a field of a [`section!`] must be there.
#[rustfmt::skip]
macro_rules! presence {
    () => { Presence::Required };
    (none) => { Presence::Optional };
    ($default:literal) => { Presence::Default($default) };
}

/// What the documentation of the struct says about the default of a field.
#[rustfmt::skip]
macro_rules! default_doc {
    (none) => { "" };
    ($default:literal) => { concat!("\nDefault: ", $default) };
}

/// A section of the manifest, each field in one place. To add a field, add this, in the order of the manifest:
/// ```text
/// /// What it means, as the reference page says it.
/// grace_ms, "grace": duration(0, DAY) = "10s";
/// ```
/// * That is the field of the struct, the name in the manifest, kind and bounds, and the default; without a default
///   the field must be there, `= none` lets a field that is handed in be left out. A kind that [`kind!`] does not know needs its three lines there.
/// * Sets that are stored do not have the new field: `#[serde(default)]` after the documentation, or
///   `#[serde(default = "…")]` where the default is not what the type has.
/// * A field with alternatives, a rule about another field or a type of its own is handed in: `listen: SocketAddr =>
///   export::address, "listen": …` names its type and its writer; `read` takes it as an argument, in the order of
///   the fields.
/// * A field of the struct that is `several` in the manifest comes first, with their rows; its writer gives those
///   that are there.
///
/// Then: `generate.rs` and `full_manifest` of the tests, and `REGATTA_BLESS=1` for schema and reference page.
macro_rules! section {
    (
        $(#[$about:meta])+
        $type:ident, $table:ident: $exclusive:expr;
        $(several {
            $(#[doc = $first_doc:literal])+
            $first:ident: $first_type:ty => $write_first:path, [$($row:expr),+];
        })?
        $(
            $(#[doc = $doc:literal])+
            $(#[serde($($serde:tt)+)])?
            $field:ident $(: $given:ty => $write:path)?, $name:literal: $kind:ident($($limit:expr),*)
            $(= $default:tt)?;
        )+
    ) => {
        $(#[$about])+
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $type {
            $($(#[doc = $first_doc])+ pub $first: $first_type,)?
            $(
                $(#[doc = $doc])+
                $(#[doc = default_doc!($default)])?
                $(#[serde($($serde)+)])?
                pub $field: kind!(type $kind $($given)?),
            )+
        }

        static $table: Object = Object {
            exclusive: $exclusive,
            fields: &[
                $($($row,)+)?
                $(field($name, $kind($($limit),*), presence!($($default)?), concat!($($doc),+).trim_ascii_start()),)+
            ],
        };

        impl $type {
            /// Reads every field, whatever is wrong with others.
            #[allow(clippy::too_many_arguments, reason = "one for each field that is handed in")]
            pub(crate) fn read(
                section: &Section<'_>,
                $($first: Result<$first_type, Invalid>,)?
                $($($field: Result<$given, Invalid>,)?)+
            ) -> Result<Self, Invalid> {
                // All fields may be handed in.
                let _ = section;
                $(let $field = kind!(read $kind section.item($name) $(, $field: $given)?);)+
                Ok(Self { $($first: $first?,)? $($field: $field?,)+ })
            }

            pub(crate) fn tree(&self) -> Tree {
                let mut fields = Vec::new();
                $(fields.extend($write_first(&self.$first));)?
                fields.extend([$(($name, kind!(write $kind self.$field $(, $write)?))),+]);
                export::map(fields)
            }
        }
    };
}

pub(super) use {default_doc, kind, presence, section};
