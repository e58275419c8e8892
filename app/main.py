"""What ``sanic app.main --workers 8`` loads."""

from app.factory import create_app

app = create_app()
