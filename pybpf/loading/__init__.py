"""From an ObjectSpec to descriptors: one module for each concern of a load; `loader` has their order."""
