"""The post office: takes mails, unless an address is not one."""


class PostOffice:
    """Stands for a mail server."""

    def send(self, address: str, message: str) -> None:
        """Send a mail.

        Raises:
            ValueError: there is no such address.
        """
        if "@" not in address:
            raise ValueError(f"{address!r} is no address")
        print(f"to {address}: {message}", flush=True)
