//! Sessions: what can be resumed, listed and deleted.

use crate::app::App;
use crate::http::routes::Routes;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
}
