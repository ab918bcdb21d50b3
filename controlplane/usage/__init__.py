"""Where the money goes: usage of the platform, an organization, an application or a person, over a period."""
