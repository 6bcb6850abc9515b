//! The client API of executions.

use crate::app::App;
use crate::http::routes::Routes;

/// What clients call.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
}
