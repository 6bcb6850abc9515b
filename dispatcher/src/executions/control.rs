//! The worker API.

use crate::app::App;
use crate::http::routes::Routes;

/// What workers call.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
}
