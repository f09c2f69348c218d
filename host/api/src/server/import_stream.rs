//! The answer to an import: one JSON object a line, until it is done.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use crate::control::Answer;
use crate::image_types::{ImageInfo, ImportEvent, ImportProgress};
use crate::types::ApiError;

/// Content type of the answer.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";

/// What fails within this time answers with the status of its error.
const EARLY: Duration = Duration::from_millis(300);
/// Time between two lines while bytes are read.
const PACE: Duration = Duration::from_millis(200);
/// A line comes at least every so many paces, so that a client can tell a slow
/// import from a dead daemon.
const SILENT_PACES_MAX: u32 = 25;

/// Answers for work that goes on in a task of its own, also when nobody listens.
pub(super) async fn answer(
    mut work: JoinHandle<Answer<ImageInfo>>,
    progress: watch::Receiver<ImportProgress>,
) -> Result<Response, Failure> {
    if let Ok(ended) = timeout(EARLY, &mut work).await {
        let image = ended.map_err(|_| panicked())??;
        return Ok(lines(Body::from(line(&ImportEvent::Done { image: Box::new(image) }))));
    }
    let following = stream::unfold(Some((work, progress)), |state| async {
        let (mut work, mut progress) = state?;
        for _ in 0..SILENT_PACES_MAX {
            tokio::select! {
                biased;
                ended = &mut work => {
                    let event = match ended {
                        Ok(Ok(image)) => ImportEvent::Done { image: Box::new(image) },
                        Ok(Err(error)) => ImportEvent::Failed { error },
                        Err(_) => ImportEvent::Failed { error: panicked() },
                    };
                    return Some((Ok::<_, std::convert::Infallible>(line(&event)), None));
                }
                () = sleep(PACE) => {}
            }
            if progress.has_changed().unwrap_or(false) {
                break;
            }
        }
        let event = ImportEvent::Progress { progress: progress.borrow_and_update().clone() };
        Some((Ok(line(&event)), Some((work, progress))))
    });
    Ok(lines(Body::from_stream(following)))
}

fn lines(body: Body) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

fn line(event: &ImportEvent) -> Bytes {
    // The types of the API cannot fail to serialize.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

fn panicked() -> ApiError {
    ApiError::internal("the daemon failed while it imported; its log has more")
}
