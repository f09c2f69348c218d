//! What the API can ask of the daemon. The fleet implements it; tests of the routes and of the command line
//! implement it with canned answers.

use async_trait::async_trait;
use regatta_core::compare::Comparison;
use regatta_core::record::TickRecord;
use tokio::sync::watch;

use crate::caller::Caller;
use crate::endpoints::endpoints;
use crate::image_types::*;
use crate::log_types::*;
use crate::recording_types::*;
use crate::recovery_types::*;
use crate::size_types::*;
use crate::types::*;
use crate::upgrade_types::*;

/// A result as the API gives it.
pub type Answer<T> = Result<T, ApiError>;

macro_rules! control {
    ($(
        $(#[doc = $doc:literal])+
        $method:ident $path:literal $attributes:tt
        $name:ident($($parameter:ident: $parameter_type:ty),*) $($input:ident: $carrier:ident<$input_type:ty>)? => $answer:ty;
    )* @by_hand $($by_hand:tt)*) => {
        /// Everything that a client may ask: a method per endpoint, with the parameters of its path, its input and
        /// the caller, whose role suffices.
        #[async_trait]
        pub trait Control: Send + Sync + 'static {
            $(
                $(#[doc = $doc])+
                async fn $name(
                    &self,
                    $($parameter: $parameter_type,)*
                    $($input: $input_type,)?
                    caller: &Caller,
                ) -> Answer<$answer>;
            )*

            /// Takes a golden image into the catalogue; tells `progress` how far it is.
            async fn import_image(
                &self,
                request: ImportImageRequest,
                progress: watch::Sender<ImportProgress>,
                caller: &Caller,
            ) -> Answer<ImageInfo>;

            /// The daemon's own metrics as OpenMetrics text.
            async fn metrics(&self, caller: &Caller) -> Answer<String>;
        }
    };
}
endpoints!(control);
