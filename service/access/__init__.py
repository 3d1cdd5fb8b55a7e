"""Who may ask what: API keys, OpenID Connect tokens, rates, an audit log. Off only where this machine alone asks."""
