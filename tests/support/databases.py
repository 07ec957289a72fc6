"""Databases of the session's server, made and copied in a moment."""

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from app.core.db import libpq_url


def create_database(server_url: str, name: str, template: str = "template1") -> str:
    """Make a database as a copy of `template`, in place of one of that name; its URL."""
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(libpq_url(server_url), autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(create)
    return database_url(server_url, name)


def database_url(server_url: str, name: str) -> str:
    """The same server's database of that name."""
    parts = conninfo_to_dict(libpq_url(server_url))
    return f"postgresql+psycopg://{parts['user']}:{parts['password']}@{parts['host']}:{parts['port']}/{name}"
