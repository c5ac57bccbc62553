"""Gateway between a buyer's Kafka estate and a wholesale supplier's SOAP ticketing API."""

__version__ = "0.1.0"
