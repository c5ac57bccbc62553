"""The flow from the supplier to Kafka: admit the caller, read the notification, keep it safe, answer."""
