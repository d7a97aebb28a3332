"""report.html: an evaluation or a comparison as one file to look at and to send on.

Everything is in the file: the template's text, one JSON element with the data, our scripts, and
plotly.js to draw. Names from files reach it escaped, as text of the template or as JSON. No number
is made here: they are those of summary.json, cases.csv and compare.json.

    evaluation_page            what the template gets; of a comparison: comparison/page.py, of
                               scores: scoring/page.py, whose page draws nothing with plotly.js
    verdict                    what is said first
    charts, cases, pictures    the three parts of the JSON element
    render                     template and assets into one file
"""
