"""Deliveries of webhooks. One controller at a time delivers each webhook; `dispatcher` claims, `delivery` sends."""
