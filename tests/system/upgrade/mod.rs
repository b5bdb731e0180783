//! Upgrades, reloads and stops under load: clients must notice nothing.

mod failures;
mod lineage;
mod load;
mod reload;
mod service_manager;
mod stop;
mod templates;
