//! One rendering at a time: scrapes that come while one is being made share the next.
//!
//! Rendering takes milliseconds of a processor at thousands of series. However many scrape at once, one thread at
//! most works for them, and nobody gets a text that was begun before it asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// The last text rendered, and how many were begun.
#[derive(Default)]
pub(super) struct Scrapes {
    begun: AtomicU64,
    latest: Arc<Mutex<Rendered>>,
}

#[derive(Default)]
struct Rendered {
    number: u64,
    text: Arc<str>,
}

impl Scrapes {
    /// The text of a rendering that began after this call; `None` if rendering panicked.
    pub(super) async fn share(
        self: Arc<Self>,
        render: impl FnOnce() -> String + Send + 'static,
    ) -> Option<Arc<str>> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut latest = Arc::clone(&self.latest).lock_owned().await;
        if latest.number > before {
            return Some(Arc::clone(&latest.text));
        }
        // The lock goes along: if the client leaves, the next still waits for this thread instead of adding one.
        let rendered = tokio::task::spawn_blocking(move || {
            latest.number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            latest.text = render().into();
            Arc::clone(&latest.text)
        });
        rendered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_scrapes_at_once_cost_two_renderings() {
        let (scrapes, rendered) = (Arc::new(Scrapes::default()), Arc::new(AtomicUsize::new(0)));
        let (started_tx, started) = std::sync::mpsc::channel();
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn(Arc::clone(&scrapes).share(move || {
            started_tx.send(()).expect("the test waits");
            // Ends when the test drops its side.
            let _let_go = held.recv();
            "first".to_owned()
        }));
        tokio::task::spawn_blocking(move || started.recv()).await.expect("no panic").expect("it began");
        let mut others: Vec<_> = (0..100)
            .map(|_| {
                let rendered = Arc::clone(&rendered);
                let render = move || format!("{}", rendered.fetch_add(1, Ordering::SeqCst));
                Box::pin(Arc::clone(&scrapes).share(render))
            })
            .collect();
        // All hundred have asked, and wait for the lock.
        for other in &mut others {
            assert!(futures_util::poll!(other.as_mut()).is_pending());
        }
        drop(let_go);
        assert_eq!(first.await.expect("no panic").as_deref(), Some("first"));
        for other in others {
            assert_eq!(other.await.as_deref(), Some("0"));
        }
        assert_eq!(rendered.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_scrape_that_panics_leaves_the_next_one_well() {
        let scrapes = Arc::new(Scrapes::default());
        assert_eq!(Arc::clone(&scrapes).share(|| panic!("on purpose")).await, None);
        assert_eq!(Arc::clone(&scrapes).share(|| "well".to_owned()).await.as_deref(), Some("well"));
    }
}
