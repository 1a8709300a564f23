//! An HTTP server that cannot be kept busy.
//!
//! Whoever asks for metrics says so at once, reads the answer at once, and is done. So a connection
//! has one request and little time for it, and of too many the oldest makes room: a client that is
//! slow, silent, huge or one of thousands costs little, and those who mean it are served meanwhile.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// How long a connection may last, from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many connections there may be at a time.
const MOST: usize = 64;

/// How long a request may be up to its body, in bytes. Nobody reads the body.
const LONGEST: usize = 16 * 1024;

/// Serves these routes for as long as it is polled.
pub(super) async fn serve(mut listener: TcpListener, routes: Router) -> Infallible {
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::with_capacity(MOST);
    loop {
        // If the process has no descriptor left, this waits a second and tries again.
        let (stream, _) = Listener::accept(&mut listener).await;
        open.retain(|connection| !connection.is_finished());
        if open.len() == MOST
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(answer(stream, routes.clone())));
    }
}

async fn answer(stream: TcpStream, routes: Router) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .max_buf_size(LONGEST)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    // What a client does wrong, or does not wait for, is its own affair.
    let _ = timeout(PATIENCE, connection).await;
}
